#!/usr/bin/env python3
"""Builds the meter for Envoy and prints its path: .cache/meter/libtollgate_meter-HASH.so.

    scripts/build_meter.py                 build, print the path
    scripts/build_meter.py --into bin      put it there too, in place of older ones, and say which host will meter
    scripts/build_meter.py --fault         a library that a test can break: .cache/meter/fault/

Needs cargo 1.85 or later and nothing else: the workspace in meter/ has no crates.
Without it nothing is built and nothing printed, and the exit status is 0: Tollgate
meters by ext_proc then. The same sources and the same compiler make the same
bytes, in whatever folder. HASH is that of the bytes: an Envoy keeps the library
that it has loaded, so another one needs another name. Progress goes to stderr.
"""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ROOT / "meter"
OLDEST = (1, 85)
NAME = "libtollgate_meter-*.so"


def say(text):
    print(text, file=sys.stderr, flush=True)


def cargo():
    """The path of a cargo that is new enough, or None."""
    found = os.environ.get("CARGO") or shutil.which("cargo")
    if not found:
        return None
    try:
        out = subprocess.run([found, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(rb"(\d+)\.(\d+)", out.stdout)
    return found if version and tuple(int(n) for n in version.groups()) >= OLDEST else None


def digest_of_sources():
    """12 hex digits over the names and bytes of all that the library is made of."""
    digest = hashlib.sha256()
    files = [p for p in SOURCES.rglob("*") if p.suffix == ".rs" or p.name in ("Cargo.toml", "Cargo.lock")]
    for path in sorted(files, key=lambda p: p.relative_to(SOURCES).as_posix()):
        if {"target", "tests", "feed"} & set(path.relative_to(SOURCES).parts):
            continue
        content = path.read_bytes()
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def build(tool, fault):
    """Builds the library and returns the path that cargo gives it."""
    target = ROOT / ".cache" / "meter-target" / ("fault" if fault else "library")
    env = dict(os.environ, TOLLGATE_METER_BUILD=digest_of_sources())
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    # No folder of this machine is in the bytes.
    env["RUSTFLAGS"] = f"--remap-path-prefix={SOURCES}=meter --remap-path-prefix={home}=cargo"
    env.pop("CARGO_ENCODED_RUSTFLAGS", None)
    command = [tool, "build", "--release", "--locked", "--offline", "--quiet"]
    command += ["--package", "tollgate-meter-module", "--target-dir", str(target)]
    if fault:
        command += ["--features", "fault"]
    subprocess.run(command, cwd=SOURCES, env=env, stdout=sys.stderr, check=True)
    return target / "release" / "libtollgate_meter.so"


def put(library, folder):
    """Copies the library into a folder under its name, in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    content = library.read_bytes()
    path = folder / NAME.replace("*", hashlib.sha256(content).hexdigest()[:12])
    if not path.exists() or path.read_bytes() != content:
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as fresh:
            fresh.write(content)
        os.chmod(fresh.name, 0o644)
        os.replace(fresh.name, path)
    os.utime(path)  # of several the newest counts
    return path


def main():
    parser = argparse.ArgumentParser(description="Builds the meter for Envoy.")
    parser.add_argument("--into", type=pathlib.Path, help="a folder that gets the library, in place of older ones")
    parser.add_argument("--fault", action="store_true", help="a library that a test can break")
    args = parser.parse_args()
    tool = cargo()
    if tool is None:
        if args.into:
            for old in args.into.glob(NAME):
                old.unlink()
        say("metering by ext_proc: no cargo {}.{} or later".format(*OLDEST))
        return 0
    try:
        path = put(build(tool, args.fault), ROOT / ".cache" / "meter" / ("fault" if args.fault else ""))
    except subprocess.CalledProcessError as err:
        say(f"the meter cannot be built: cargo has failed with {err.returncode}")
        return 1
    if args.into:
        beside = put(path, args.into)
        for old in args.into.glob(NAME):
            if old != beside:
                old.unlink()
        say(f"metering inside Envoy: {beside}")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
