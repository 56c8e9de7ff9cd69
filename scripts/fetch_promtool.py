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
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetch_envoy  # noqa: E402
from fetch_envoy import Failure, say  # noqa: E402

MODULE = pathlib.Path(__file__).resolve().parent / "promtool"
PACKAGE = "github.com/prometheus/prometheus"
OLDEST = (2, 42)
CACHE = fetch_envoy.ROOT / ".cache" / "promtool"


def version_of(binary):
    """The version that a promtool reports, as a tuple of numbers; empty when there is none."""
    try:
        out = subprocess.run(
            [str(binary), "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"promtool, version (\d+)\.(\d+)\.(\d+)", out)
    return tuple(int(n) for n in found.groups()) if found else ()


def installed():
    """A promtool that is already on this machine, or None."""
    named = os.environ.get("PROMTOOL_BIN", "")
    if named:
        found = shutil.which(named)
        if not found:
            raise Failure(f"PROMTOOL_BIN names {named}, which is not an executable file")
        return found
    found = shutil.which("promtool")
    return found if found and version_of(found)[:2] >= OLDEST else None


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
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"building promtool {pinned()} for the tests of the alert rules, once")
    with tempfile.TemporaryDirectory(dir=str(CACHE), prefix="build-") as name:
        binary = pathlib.Path(name) / "promtool"
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


def main():
    try:
        print(installed() or built())
    except (Failure, OSError, subprocess.SubprocessError) as err:
        say(f"fetch promtool: {err}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
