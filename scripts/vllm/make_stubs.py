#!/usr/bin/env python3
"""Builds stand-ins for the CUDA libraries that the torch wheel links.

usage: make_stubs.py SITE_PACKAGES

The only torch among packages is the CUDA build, whose libraries name some two
gigabytes of NVIDIA's. A CPU run calls none of them, but the loader wants each
file and each symbol. For every such library that is missing, an empty shared
object of its name is built where torch looks for it; one of them defines every
missing symbol as a function that says its name and aborts. Needs gcc, readelf.
"""

import pathlib
import re
import subprocess
import sys

SYSTEM = [pathlib.Path(p) for p in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")]
PROLOGUE = """#include <stdio.h>
#include <stdlib.h>
static void stop(const char *name) { fprintf(stderr, "CUDA stand-in called: %s\\n", name); abort(); }
"""


def readelf(option, file):
    return subprocess.run(["readelf", option, "-W", str(file)], check=True, text=True, capture_output=True).stdout


def needed(file):
    return set(re.findall(r"NEEDED.*\[(.+?)\]", readelf("-d", file)))


def symbols(file):
    """(defined, undefined) dynamic symbols of a shared object."""
    defined, undefined = set(), set()
    for line in readelf("--dyn-syms", file).splitlines():
        field = line.split()
        if len(field) < 8 or not field[0].rstrip(":").isdigit():
            continue
        binding, section, name = field[4], field[6], field[7].split("@")[0]
        if section != "UND":
            defined.add(name)
        elif binding == "GLOBAL":
            undefined.add(name)
    return defined, undefined


def system_library(name):
    return next((folder / name for folder in SYSTEM if (folder / name).exists()), None)


def main():
    packages = pathlib.Path(sys.argv[1])
    target = packages / "nvidia/cu13/lib"  # in the search path of torch's libraries
    target.mkdir(parents=True, exist_ok=True)
    torch = sorted(f for f in (packages / "torch/lib").iterdir() if ".so" in f.name and f.is_file())
    wanted = set().union(*map(needed, torch))
    present = {f.name for f in torch} | {f.name for f in target.iterdir()}
    missing = sorted(n for n in wanted if n not in present and not system_library(n))
    if not missing:
        return
    defined, undefined = set(), set()
    for file in torch:
        has, lacks = symbols(file)
        defined |= has
        undefined |= lacks
    for file in [*target.iterdir(), *filter(None, map(system_library, wanted))]:
        defined |= symbols(file)[0]
    # Python's own are the interpreter's.
    absent = sorted(s for s in undefined - defined if re.fullmatch(r"[A-Za-z_]\w*", s) and not s.startswith(("Py", "_Py")))
    code = PROLOGUE + "".join(f'void {s}(void) {{ stop("{s}"); }}\n' for s in absent)
    for i, name in enumerate(missing):
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-w", "-fno-builtin", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", str(target / name)],
            input=code if i == 0 else "", text=True, check=True,
        )
    print(f"{len(missing)} CUDA libraries replaced, {len(absent)} symbols")


if __name__ == "__main__":
    main()
