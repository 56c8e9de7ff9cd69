"""The licences of everything that is linked into the programs, as one text.

A module without a licence file is a failure: it must not be shipped.
"""

import json
import pathlib
import subprocess
import sys

from fetching import ROOT, Failure

NAMES = ("licen", "copying", "notice", "patents")
# What is in the tree or in the library of the meter, beside the modules of Go.
RUST = """The meter for Envoy (libtollgate_meter) is linked with the Rust standard library, which is under the MIT licence or
the Apache License, version 2.0, and is copyright of The Rust Project contributors (https://www.rust-lang.org).
"""


def modules(packages, env):
    """Every linked module: {path: (version, folder)}. Its packages are those of the programs."""
    out = subprocess.run(["go", "list", "-deps", "-json=Module,Standard", *packages], cwd=str(ROOT), env=env, stdout=subprocess.PIPE, stderr=sys.stderr, check=True)
    found, text, decoder = {}, out.stdout.decode(), json.JSONDecoder()
    at = 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        while at < len(text) and text[at].isspace():
            at += 1
        module = value.get("Module")
        if module and not module.get("Main"):
            module = module.get("Replace") or module
            found[module["Path"]] = (module["Version"], pathlib.Path(module["Dir"]))
    return found


def files(folder):
    """The licence files at the top of a module."""
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().startswith(NAMES) and p.suffix.lower() in ("", ".md", ".txt", ".rst"))


def text(packages, env):
    """The notice."""
    root = pathlib.Path(subprocess.run(["go", "env", "GOROOT"], env=env, stdout=subprocess.PIPE, check=True).stdout.decode().strip())
    parts = [("The Go standard library", [root / "LICENSE"])]
    for path, (version, folder) in sorted(modules(packages, env).items()):
        licences = files(folder)
        if not licences:
            raise Failure(f"{path} {version} has no licence file")
        parts.append((f"{path} {version}", licences))
    parts += [(f"{p.name.removesuffix('.LICENSE')}, in the console", [p]) for p in sorted((ROOT / "internal/console/static/vendor").glob("*.LICENSE"))]
    out = ["Tollgate is under the Apache License, version 2.0 (copyright). It contains what follows.\n"]
    for title, licences in parts:
        out.append(f"{'=' * 100}\n{title}\n{'=' * 100}\n")
        out += [p.read_text(encoding="utf-8", errors="replace").strip() + "\n" for p in licences]
    return "\n".join([*out, "=" * 100, RUST])
