#!/usr/bin/env python3
"""Prints the path of Open WebUI's program, installing it if need be.

It is a virtual environment in .cache/openwebui, with the wheels that
openwebui.lock names and nothing else: versions and hashes. That is what the
program loads at its start; what it needs for models and files of its own
(PyTorch above all) is left out. 900 MB, so that only `make proof` has it. Needs
Python 3.11 or 3.12. Progress goes to stderr, the path alone to stdout.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

LOCK = pathlib.Path(__file__).resolve().parent / "openwebui.lock"
CACHE = fetching.CACHE / "openwebui"
# pip's own entry names its interpreter by a path, which a rename breaks.
PROGRAM = """#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/python" -c 'import sys; from open_webui import app; sys.exit(app())' "$@"
"""


def interpreter():
    """A Python that the wheels are for."""
    test = "import ensurepip, sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))"
    for name in (sys.executable, "python3.11", "python3.12"):
        if shutil.which(name) and subprocess.run([name, "-c", test], stderr=subprocess.DEVNULL).returncode == 0:
            return name
    raise Failure("Open WebUI needs Python 3.11 or 3.12 with venv: install one of them")


def fetched():
    """The program, installed in one step."""
    home = CACHE / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    program = home / "bin" / "open-webui"
    if os.access(program, os.X_OK):
        return str(program)
    say("installing Open WebUI for the tests (about 300 MB to fetch), once")
    with fetching.workplace(CACHE) as work:
        fresh = work / "home"
        for command in (
            [interpreter(), "-m", "venv", str(fresh)],
            [str(fresh / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
             "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)],
        ):
            if subprocess.run(command, stdout=sys.stderr).returncode != 0:
                raise Failure("pip could not install Open WebUI (see above). Behind a proxy or a mirror set pip's own options")
        (fresh / "bin" / "open-webui").write_text(PROGRAM)
        (fresh / "bin" / "open-webui").chmod(0o755)
        fetching.place(fresh, home)
    return str(program)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch openwebui", fetched))
