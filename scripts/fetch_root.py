#!/usr/bin/env python3
"""Prints the path of a small Debian 12 for the tests of the packages, made if need be.

It is made once, by debootstrap, in .cache/root/bookworm: the base system with
systemd, systemd-nspawn, rpm and curl. debootstrap itself is fetched with apt-get
and unpacked; it checks all that it fetches against the archive's signed index.
Needs root, because the files in it have owners. Progress goes to stderr, the path
alone to stdout.
"""

import os
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

SUITE = "bookworm"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
INCLUDE = "systemd,systemd-sysv,systemd-container,dbus,curl,rpm,procps"
CACHE = fetching.CACHE / "root"


def made():
    """The cached root, made if it is not there yet."""
    target = CACHE / SUITE
    if (target / "usr/bin/systemd-nspawn").exists():
        return str(target)
    if os.geteuid() != 0:
        raise Failure("only root can make a root file system")
    with fetching.workplace(CACHE) as folder:
        say("making a Debian 12 for the tests of the packages (about 100 MB), once")
        options = []
        if not fetching.apt([], ["download", "debootstrap"], folder):
            options = fetching.own_lists(CACHE / "apt")
            if not fetching.apt(options, ["update"], folder) or not fetching.apt(options, ["download", "debootstrap"], folder):
                raise Failure("apt-get could not fetch debootstrap (see above)")
        tool = folder / "debootstrap"
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(tool)], check=True)
        env = dict(os.environ, DEBOOTSTRAP_DIR=str(tool / "usr/share/debootstrap"))
        command = ["sh", str(tool / "usr/sbin/debootstrap"), "--variant=minbase", f"--include={INCLUDE}", SUITE, str(folder / "tree"), MIRROR]
        if subprocess.run(command, env=env, stdout=sys.stderr).returncode != 0:
            raise Failure("debootstrap has failed (see above)")
        fetching.place(folder / "tree", target)
    return str(target)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch root", made))
