#!/usr/bin/env python3
"""Prints a folder with the browser that drives the console in the tests.

The folder has `chromium` (a script that starts Debian's headless Chromium with the
libraries beside it) and `axe.min.js`, which finds what people with assistive
technology cannot use. The browser comes from Debian's packages: what is missing is
downloaded by apt, which checks it, and unpacked; nothing is installed and no root is
needed. axe is an npm package, pinned by its hash. Everything is put into
.cache/browser in one step. Progress goes to stderr, the path alone to stdout.
"""

import base64
import hashlib
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetch_clients import npm, unpack  # noqa: E402
from fetching import Failure, say  # noqa: E402

PACKAGE = "chromium-headless-shell"
FONT = "fonts-dejavu-core"  # a machine without any font shows nothing
AXE = ("axe-core@4.14.1", "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==")
CACHE = fetching.CACHE / "browser"

# The folder of the script, whatever links lead to it, so that the cache may move.
START = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for folder in "$here"/root/usr/lib/*-linux-gnu "$here"/root/usr/lib/*-linux-gnu/* "$here"/root/lib/*-linux-gnu; do
	[ -d "$folder" ] && path="$folder${path:+:$path}"
done
export LD_LIBRARY_PATH="$path" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/root/usr/lib/chromium/chromium-headless-shell" "$@"
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir prefix="relative">root/usr/share/fonts</dir><cachedir prefix="relative">fonts.cache</cachedir></fontconfig>
"""


def axe(folder):
    """The pinned axe.min.js."""
    spec, digest = AXE
    command = [*npm(), "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), spec]
    if subprocess.run(command, stdout=subprocess.DEVNULL, cwd=folder).returncode != 0:
        raise Failure(f"npm could not fetch {spec} (see above). Behind a proxy or a mirror set npm's own options")
    packages = list(folder.glob("*.tgz"))
    if len(packages) != 1:
        raise Failure(f"npm left {len(packages)} packages, one was expected")
    got = base64.b64encode(hashlib.sha512(packages[0].read_bytes()).digest()).decode()
    fetching.same(digest, got, f"the SHA-512 of {spec}")
    unpack(packages[0], folder / "files")
    return folder / "files" / "axe.min.js"


def missing(options):
    """The packages that the browser needs and this machine lacks; None when apt-get does not know."""
    command = fetching.apt_command(options, ["install", "--simulate", "--no-install-recommends", PACKAGE])
    plan = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if plan.returncode != 0:
        return None
    lines = plan.stdout.decode("utf-8", "replace").splitlines()
    return sorted({line.split()[1] for line in lines if line.startswith("Inst ")} | {PACKAGE, FONT})


def chromium(folder, root):
    """Debian's browser and what it needs beside what is installed, unpacked into root."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise Failure(f"there is no {tool}: the tests of the console take their browser from Debian's packages")
    options = []
    names = missing(options)
    if not names or not fetching.apt(options, ["download", *names], folder):
        say("fetching the lists of packages first")
        options = fetching.own_lists(CACHE / "apt")
        names = fetching.apt(options, ["update"], folder) and missing(options)
        if not names or not fetching.apt(options, ["download", *names], folder):
            raise Failure("apt-get could not fetch the browser (see above)")
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)


def fetched():
    """The folder, made in one step."""
    home = CACHE / "2"
    if (home / "axe.min.js").exists():
        return str(home)
    say("fetching a headless Chromium and axe for the tests of the console (about 60 MB), once")
    with fetching.workplace(CACHE) as work:
        folders = [work / name for name in ("home", "debian", "npm")]
        for folder in folders:
            folder.mkdir()
        out, debian, node = folders
        chromium(debian, out / "root")
        (out / "chromium").write_text(START, encoding="utf-8")
        (out / "chromium").chmod(0o755)
        (out / "fonts.conf").write_text(FONTS, encoding="utf-8")
        axe(node).rename(out / "axe.min.js")
        fetching.place(out, home)
    return str(home)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch browser", fetched))
