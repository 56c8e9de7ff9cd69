#!/usr/bin/env python3
"""Prints a folder with the official SDKs for Node, fetching them if need be.

The folder has `node`, a pinned Node, and `node_modules` as scripts/sdks/ locks
them: versions and hashes. npm checks the hashes and runs no package's scripts.
No root. Progress goes to stderr, the path alone to stdout.
"""

import os
import pathlib
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetch_clients import bundled_node, bundled_npm  # noqa: E402
from fetching import Failure, say  # noqa: E402

LOCKED = pathlib.Path(__file__).resolve().parent / "sdks"
FILES = ("package.json", "package-lock.json")
CACHE = fetching.CACHE / "sdks"


def fresh(home):
    """Whether a folder has what is locked now."""
    try:
        return all((home / name).read_bytes() == (LOCKED / name).read_bytes() for name in FILES) and (home / "node").exists()
    except FileNotFoundError:
        return False


def fetched():
    """The folder, made in one step."""
    home = CACHE / "node"
    if fresh(home):
        return str(home)
    node = bundled_node() / "bin" / "node"
    say("fetching the SDKs for Node (about 15 MB), once")
    with fetching.workplace(CACHE) as work:
        folder = work / "node"
        folder.mkdir()
        for file in FILES:
            shutil.copyfile(LOCKED / file, folder / file)
        (folder / "node").symlink_to(os.path.relpath(node, home))  # so that the cache may move
        env = dict(os.environ, PATH=f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}")
        command = [*bundled_npm(), "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
        if subprocess.run(command, stdout=subprocess.DEVNULL, cwd=str(folder), env=env).returncode != 0:
            raise Failure("npm could not fetch the SDKs (see above). Behind a proxy or a mirror set npm's own options")
        fetching.place(folder, home)
    return str(home)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch sdks", fetched))
