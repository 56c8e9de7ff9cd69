#!/usr/bin/env python3
"""Runs `go test -json` with the given arguments, and lets no skipped test pass.

What is printed is what `go test` prints without -v. At the end come all skipped
tests by name; one that scripts/allowed_skips.txt does not name fails the run.

With SECOND_TRY=N in the environment (CI), the packages of up to N tests that
failed run once more. What passes then is named as unsteady, each a bug to mend,
and does not fail the run. A data race, a panic, a timeout or a process that died
gets no second try.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys

ALLOWED = pathlib.Path(__file__).resolve().parent / "allowed_skips.txt"


class Report:
    """Collects the events of one run."""

    def __init__(self):
        self.output = {}  # (package, test) -> lines, of tests that may still fail
        self.passed = 0
        self.failed = []  # (package, test)
        self.skipped = {}  # "package.Test" -> reason
        self.packages = set()
        self.final = False  # something failed that a second try must not hide

    def event(self, e):
        action, package, test = e.get("Action"), e.get("Package", ""), e.get("Test")
        if action in ("output", "build-output"):
            self.line(package, test, e.get("Output", ""))
        elif action == "skip" and test:
            lines = self.output.pop((package, test), [])
            said = [text.strip() for text in lines if not text.lstrip().startswith(("===", "---"))]
            self.skipped[f"{package}.{test}"] = " ".join(said)
        elif action == "pass":
            if test:
                self.passed += 1
                self.output.pop((package, test), None)
            else:
                self.packages.add(package)
        elif action == "fail":
            self.fail(package, test)

    def line(self, package, test, text):
        if text.startswith(("WARNING: DATA RACE", "panic:", "fatal error:")):
            self.final = True
        if test:
            self.output.setdefault((package, test), []).append(text)
        elif text != "PASS\n" and not text.startswith(("-test.shuffle", "coverage:")):
            show(text)

    def fail(self, package, test):
        if test:
            self.failed.append((package, test))
            self.print(package, test)
            return
        self.packages.add(package)
        if not any(failed == package for failed, _ in self.failed):
            self.final = True  # it does not build, or fails outside of its tests
        # A panic, a timeout, a kill: what was running never ended.
        for key in [k for k in self.output if k[0] == package]:
            self.final = True
            self.print(*key)

    def print(self, package, test):
        for text in self.output.pop((package, test), []):
            if not text.startswith(("=== RUN", "=== PAUSE", "=== CONT", "=== NAME")):
                show(text)


def show(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def allowed_skips():
    """Names that may be skipped, each with its reason."""
    allowed = {}
    for line in ALLOWED.read_text(encoding="utf-8").splitlines():
        name, _, reason = line.partition(" ")
        if name and not name.startswith("#"):
            allowed[name] = reason.strip()
    return allowed


def run(arguments):
    """Runs go test and returns what it reported and its exit status."""
    report = Report()
    with subprocess.Popen(
        ["go", "test", "-json", *arguments], stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    ) as process:
        for raw in process.stdout:
            text = raw.decode("utf-8", "replace")
            try:
                event = json.loads(text)
            except ValueError:
                event = None
            if isinstance(event, dict):
                report.event(event)
            else:
                show(text)
    return report, process.returncode


def refusals(report):
    """The skipped tests that may not be skipped."""
    allowed = allowed_skips()
    return [name for name in sorted(report.skipped) if name not in allowed]


def second_try(report, arguments):
    """Runs the packages of what failed once more, whole: a leak shows only where
    all else passes. True when everything passes then."""
    tests = sorted({(package, test.split("/")[0]) for package, test in report.failed})
    if report.final or not 0 < len(tests) <= int(os.environ.get("SECOND_TRY") or 0):
        return False
    packages = [a for a in arguments if a.startswith(("./", "tollgate/"))]
    flags = [a for a in arguments if a not in packages]
    for package in sorted({package for package, _ in tests}):
        show(f"second try: {package}\n")
        again, status = run([package, *flags])
        if status != 0 or again.passed == 0 or refusals(again):
            return False
    for package, test in tests:
        show(f"UNSTEADY, passed at the second try: {package}.{test}\n")
    return True


def main():
    # Ctrl-C is for go test; this process only waits for its last words.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report, status = run(sys.argv[1:])
    refused = refusals(report)
    for name in sorted(report.skipped):
        word = "NOT ALLOWED" if name in refused else "allowed"
        show(f"skipped, {word}: {name}: {report.skipped[name] or 'no reason given'}\n")
    for package, test in report.failed:
        show(f"failed: {package}.{test}\n")
    show(f"{len(report.packages)} packages, {report.passed} tests passed, {len(report.failed)} failed, {len(report.skipped)} skipped\n")
    if status != 0 and not second_try(report, sys.argv[1:]):
        return 1
    if report.passed == 0:
        show("no test ran at all\n")
        return 1
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
