#!/usr/bin/env python3
"""Prints the path of an OpenTelemetry collector for the tests, building it if need be.

It is the OTLP receiver of the real collector with nothing behind it but standard
output, from the pinned modules of scripts/collector/collector.sum: .cache/collector/HASH/collector,
where HASH is that of the sources. One that COLLECTOR_BIN names is used as it is. Needs
Go; takes a minute or two once. Progress goes to stderr, the path alone to stdout.
"""

import hashlib
import os
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

SOURCES = fetching.ROOT / "scripts" / "collector"
CACHE = fetching.CACHE / "collector"


def built():
    """The cached collector, built if it is not there yet."""
    digest = hashlib.sha256(b"".join((SOURCES / name).read_bytes() for name in ("collector.mod", "collector.sum", "main.go")))
    target = CACHE / digest.hexdigest()[:12] / "collector"
    if os.access(target, os.X_OK):
        return str(target)
    say("building a collector for the tests (about 40 MB of modules), once")
    with fetching.workplace(CACHE) as folder:
        binary = folder / "collector"
        command = ["go", "build", "-modfile", str(SOURCES / "collector.mod"), "-trimpath", "-ldflags", "-s -w", "-o", str(binary), str(SOURCES / "main.go")]
        if subprocess.run(command, cwd=fetching.ROOT, stdout=sys.stderr, env={**os.environ, "GOWORK": "off"}).returncode != 0:
            raise Failure("it cannot be built: see above, or name one in COLLECTOR_BIN")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(binary, target)
    return str(target)


if __name__ == "__main__":
    sys.exit(fetching.main("build collector", lambda: os.environ.get("COLLECTOR_BIN") or built()))
