#!/usr/bin/env python3
"""Moves the entries of .changelog/ into CHANGELOG.md.

An entry is one file, .changelog/<name>.md: its first line is its kind (breaking,
security, feature, fix), the rest is one sentence in a user's words. Several people
add entries at once, each in a file of its own; this script puts them together.

Usage: changelog.py VERSION, for example v0.1.0. Where the top section of
CHANGELOG.md is of that version, the entries are added to it: a release that is not
out yet may be assembled as often as one likes. Otherwise a new section is begun.
The date is today's. Without an argument the entries are only checked and printed.
"""

import datetime
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = {"breaking": "Breaking", "security": "Security", "feature": "Features", "fix": "Fixes"}
HEAD = "# Changelog\n"


def entries():
    """The sentences by their kind, and their files."""
    found, files, wrong = {kind: [] for kind in KINDS}, [], []
    for file in sorted((ROOT / ".changelog").glob("*.md")):
        kind, _, text = file.read_text(encoding="utf-8").strip().partition("\n")
        kind, text = kind.strip().rstrip(":").lower(), " ".join(text.split())
        if kind not in KINDS or not text:
            wrong.append(f"{file.name}: want a line with one of {', '.join(KINDS)}, then a sentence")
            continue
        found[kind].append(text)
        files.append(file)
    if wrong:
        raise SystemExit("\n".join(wrong))
    return found, files


def section(title, found):
    lines = [f"## {title}", ""]
    for kind, heading in KINDS.items():
        if found[kind]:
            lines += [f"### {heading}", ""] + [f"- {text}" for text in found[kind]] + [""]
    return "\n".join(lines)


def split(text, version):
    """The sentences of the top section where it is of the version, and what follows it."""
    body = text[len(HEAD):] if text.startswith(HEAD) else text
    have = {kind: [] for kind in KINDS}
    top = re.match(rf"\s*## {re.escape(version)}(?: \([^)]*\))?\n(.*?)(?=^## |\Z)", body, re.S | re.M)
    if not top:
        return have, body.lstrip("\n")
    kinds = {heading: kind for kind, heading in KINDS.items()}
    kind = None
    for line in top.group(1).splitlines():
        if line.startswith("### "):
            kind = kinds[line[4:].strip()]
        elif line.startswith("- "):
            have[kind].append(line[2:])
    return have, body[top.end():].lstrip("\n")


def main(args):
    found, files = entries()
    if not args:
        print(section("Unreleased", found))
        return 0
    if len(args) != 1 or not re.fullmatch(r"v\d+\.\d+\.\d+", args[0]):
        print(__doc__, file=sys.stderr)
        return 2
    target = ROOT / "CHANGELOG.md"
    have, older = split(target.read_text(encoding="utf-8") if target.exists() else HEAD, args[0])
    for kind in KINDS:
        have[kind] += [text for text in found[kind] if text not in have[kind]]
    title = f"{args[0]} ({datetime.datetime.now(datetime.timezone.utc).date()})"
    part = target.with_suffix(".part")
    part.write_text(HEAD + "\n" + section(title, have) + ("\n" + older if older else ""), encoding="utf-8")
    part.replace(target)
    for file in files:
        file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
