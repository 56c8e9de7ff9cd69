#!/usr/bin/env python3
"""Prints the path of promtool for the tests, building it if need be.

A promtool named by PROMTOOL_BIN, or one in PATH, is used as it is when it is
version 2.42 or later. Otherwise the version that scripts/promtool/go.mod pins is
built with Go, once, into .cache/promtool/VERSION/promtool: the sums of all it is
made of are in go.sum beside it. That takes a minute or two and about 500 MB of
Go's module cache. Progress goes to stderr, the path alone to stdout.
"""

import os
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

MODULE = pathlib.Path(__file__).resolve().parent / "promtool"
PACKAGE = "github.com/prometheus/prometheus"
OLDEST = (2, 42)
CACHE = fetching.CACHE / "promtool"


def installed():
    def fits(found):
        return fetching.version_of(found, r"promtool, version (\d+)\.(\d+)\.(\d+)")[:2] >= OLDEST

    return fetching.installed("PROMTOOL_BIN", ["promtool"], fits, "a promtool of version 2.42 or later")


def pinned():
    """The version in go.mod."""
    found = re.search(rf"^\s*{re.escape(PACKAGE)} (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"), re.M)
    if not found:
        raise Failure(f"{MODULE / 'go.mod'} names no version of {PACKAGE}")
    return found.group(1)


def built():
    """The cached promtool, built if it is not there yet."""
    target = CACHE / pinned() / "promtool"
    if os.access(target, os.X_OK):
        return str(target)
    say(f"building promtool {pinned()} for the tests of the alert rules, once")
    with fetching.workplace(target.parent) as folder:
        binary = folder / "promtool"
        command = [
            "go", "build", "-mod=readonly", "-trimpath", "-tags", "remove_all_sd", "-ldflags", "-s -w",
            "-o", str(binary), f"{PACKAGE}/cmd/promtool",
        ]
        done = subprocess.run(command, cwd=str(MODULE), env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}, stdout=sys.stderr)
        if done.returncode != 0:
            raise Failure("go could not build promtool (see above). Name one in PROMTOOL_BIN")
        # One that does not start is not kept.
        subprocess.run([str(binary), "--version"], stdout=subprocess.DEVNULL, timeout=60, check=True)
        os.replace(binary, target)
    return str(target)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch promtool", lambda: installed() or built()))
