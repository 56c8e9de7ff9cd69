#!/usr/bin/env python3
"""Prints the path of an nginx for the tests, fetching it if need be.

An nginx named by NGINX_BIN, or one in PATH, is used as it is when it is version
1.18 or later. Otherwise the Debian packages of it and of the libraries that it
needs are fetched with apt-get, which checks them against the archive's signed
index, and unpacked into .cache/nginx in one step; nothing is installed. The
versions are pinned; where the archive has replaced one by a security update, that
one is taken. Where the machine has no package lists, lists are fetched into
.cache. No root. Progress goes to stderr, the path alone to stdout.
"""

import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

OLDEST = (1, 18)
# Debian 12. The rest of what nginx depends on is of no use to a test.
PINNED = {
    "nginx": "1.22.1-9+deb12u11",
    "libpcre2-8-0": "10.42-1+deb12u2",
    "libssl3": "3.0.22-1~deb12u2",
    "zlib1g": "1:1.2.13.dfsg-1",
    "libcrypt1": "1:4.4.33-2",
}
CACHE = fetching.CACHE / "nginx"
# Beside the program, so that it finds its libraries wherever the folder lies.
WRAPPER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH=$(echo "$here"/root/usr/lib/*-linux-gnu):$(echo "$here"/root/lib/*-linux-gnu) exec "$here/root/usr/sbin/nginx" "$@"
"""


def version_of(binary):
    return fetching.version_of(binary, r"nginx/(\d+)\.(\d+)\.(\d+)", "-v")


def installed():
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    return fetching.installed("NGINX_BIN", ["nginx"], lambda found: version_of(found)[:2] >= OLDEST, "an nginx of version 1.18 or later", path)


def download(folder):
    """The packages, as files in the folder."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise Failure(f"there is no {tool} here: name an nginx in NGINX_BIN, or install one")
    pinned = [f"{name}={version}" for name, version in PINNED.items()]
    say("fetching nginx for the tests, with apt-get (about 3 MB), once")
    if fetching.apt([], ["download", *pinned], folder):
        return
    options = fetching.own_lists(CACHE / "apt")
    say("fetching the lists of packages first")
    if not fetching.apt(options, ["update"], folder):
        raise Failure("apt-get could not fetch its lists (see above). Name an nginx in NGINX_BIN, or install one")
    if not fetching.apt(options, ["download", *pinned], folder):
        say("the archive has other versions than the pinned ones: taking those")
        if not fetching.apt(options, ["download", *PINNED], folder):
            raise Failure("apt-get could not fetch nginx (see above). Name one in NGINX_BIN, or install it")


def fetched():
    """The cached nginx, fetched if it is not there yet."""
    target = CACHE / PINNED["nginx"].replace("+", "-")
    program = target / "nginx"
    if version_of(program)[:2] >= OLDEST:
        return str(program)
    with fetching.workplace(CACHE) as folder:
        download(folder)
        ready = folder / "ready"
        (ready / "root").mkdir(parents=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(ready / "root")], check=True)
        wrapper = ready / "nginx"
        wrapper.write_text(WRAPPER, encoding="utf-8")
        wrapper.chmod(0o755)
        if version_of(wrapper)[:2] < OLDEST:
            raise Failure("the fetched nginx does not run on this machine: name another in NGINX_BIN")
        fetching.place(ready, target)
    return str(program)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch nginx", lambda: installed() or fetched()))
