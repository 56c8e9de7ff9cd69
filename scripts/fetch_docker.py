#!/usr/bin/env python3
"""Prints the folder of a Docker Engine's programs for the tests, fetching them if need be.

The Debian packages of the engine, of docker-compose and of what they need are
fetched with apt-get, which checks them against the archive's signed index, and
unpacked into .cache/scale/docker in one step; nothing is installed and no engine is
started. The versions are pinned; where the archive has replaced one by a security
update, that one is taken. Where the machine has no package lists, lists are fetched
into .cache. No root is needed for this; the engine itself needs root. Progress goes
to stderr, the path alone to stdout.
"""

import pathlib
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

# Debian 12.
PINNED = {
    "docker.io": "20.10.24+dfsg1-1+deb12u1+b6",
    "docker-compose": "1.29.2-3",
    "containerd": "1.6.20~ds1-1+deb12u3",
    "runc": "1.1.5+ds1-1+deb12u1",
    "tini": "0.19.0-1+b3",
    "iptables": "1.8.9-2",
    "busybox-static": "1:1.35.0-4+deb12u1+b1",
}
# What those need, in whatever version the archive has.
LIBRARIES = [
    "libdevmapper1.02.1", "libip4tc2", "libip6tc2", "libmnl0", "libnetfilter-conntrack3", "libnfnetlink0", "libnftnl11", "libseccomp2", "libxtables12",
    "python3-attr", "python3-certifi", "python3-chardet", "python3-charset-normalizer", "python3-distro", "python3-docker", "python3-dockerpty",
    "python3-docopt", "python3-dotenv", "python3-idna", "python3-jsonschema", "python3-pyrsistent", "python3-requests", "python3-six", "python3-texttable",
    "python3-urllib3", "python3-websocket", "python3-yaml",
]
CACHE = fetching.CACHE / "scale" / "docker"
PROGRAMS = {
    "dockerd": "usr/sbin/dockerd",
    "docker": "usr/bin/docker",
    "docker-proxy": "usr/sbin/docker-proxy",
    "docker-init": "usr/bin/tini-static",
    "containerd": "usr/bin/containerd",
    "containerd-shim-runc-v2": "usr/bin/containerd-shim-runc-v2",
    "runc": "usr/sbin/runc",
    "iptables": "usr/sbin/xtables-nft-multi",
    "ip6tables": "usr/sbin/xtables-nft-multi",
    "busybox": "bin/busybox",
}
# They find their libraries and each other wherever the folder lies.
WRAPPER = """#!/bin/bash
here=$(dirname "$(readlink -f "$0")")
libraries=$(echo "$here"/../root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$libraries:$(echo "$here"/../root/lib/*-linux-gnu) XTABLES_LIBDIR=$libraries/xtables PATH=$here:$PATH
exec -a {name} "$here/../root/{path}" "$@"
"""
# Of Debian's own Python, for which its packages are made.
COMPOSE = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
PATH=$here:$PATH PYTHONPATH=$here/../root/usr/lib/python3/dist-packages PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -W ignore "$here/../root/usr/bin/docker-compose" "$@"
"""


def download(folder):
    """The packages, as files in the folder."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise Failure(f"there is no {tool} here, and a Docker Engine is fetched with it only")
    pinned = [f"{name}={version}" for name, version in PINNED.items()]
    say("fetching a Docker Engine for the tests, with apt-get (about 70 MB), once")
    if fetching.apt([], ["download", *pinned, *LIBRARIES], folder):
        return
    options = fetching.own_lists(fetching.CACHE / "nginx" / "apt")
    say("fetching the lists of packages first")
    if not fetching.apt(options, ["update"], folder):
        raise Failure("apt-get could not fetch its lists (see above)")
    if not fetching.apt(options, ["download", *pinned, *LIBRARIES], folder):
        say("the archive has other versions than the pinned ones: taking those")
        if not fetching.apt(options, ["download", *PINNED, *LIBRARIES], folder):
            raise Failure("apt-get could not fetch the engine (see above)")


def wrap(path, text):
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def runs(binaries):
    """Whether the engine is there and starts."""
    return fetching.version_of(binaries / "dockerd", r"(\d+)\.(\d+)") >= (20, 10) and fetching.version_of(binaries / "docker-compose", r"version (\d+)") >= (1,)


def fetched():
    """The folder of the cached programs, fetched if they are not there yet."""
    target = CACHE / PINNED["docker.io"].replace("+", "-")
    if runs(target / "bin"):
        return str(target / "bin")
    with fetching.workplace(CACHE) as name:
        folder = pathlib.Path(name)
        download(folder)
        ready = folder / "ready"
        (ready / "root").mkdir(parents=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(ready / "root")], check=True)
        (ready / "bin").mkdir()
        for name, path in PROGRAMS.items():
            wrap(ready / "bin" / name, WRAPPER.format(name=name, path=path))
        wrap(ready / "bin" / "docker-compose", COMPOSE)
        if not runs(ready / "bin"):
            raise Failure("the fetched engine does not run on this machine")
        fetching.place(ready, target)
    return str(target / "bin")


if __name__ == "__main__":
    sys.exit(fetching.main("fetch docker", fetched))
