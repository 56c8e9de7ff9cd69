#!/usr/bin/env python3
"""Moves the entries of .changelog/ to the top of CHANGELOG.md.

An entry is one file, .changelog/<issue>.md: its first line is its kind
(feature, fix, breaking, security), the rest is one sentence in a user's words.
Usage: changelog.py VERSION DATE, for example v0.2.0 2026-11-30. Without
arguments the entries are only checked and printed.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = {"breaking": "Breaking", "security": "Security", "feature": "Features", "fix": "Fixes"}
HEAD = "# Changelog\n"


def entries():
    """All entries as (kind, issue, sentence, file)."""
    found, wrong = [], []
    for file in sorted((ROOT / ".changelog").glob("*.md")):
        kind, _, text = file.read_text(encoding="utf-8").strip().partition("\n")
        kind, text = kind.strip().rstrip(":").lower(), " ".join(text.split())
        if kind not in KINDS or not text:
            wrong.append(f"{file.name}: want a line with one of {', '.join(KINDS)}, then a sentence")
        found.append((kind, file.stem, text, file))
    if wrong:
        raise SystemExit("\n".join(wrong))
    return found


def section(title, found):
    lines = [f"## {title}", ""]
    for kind, heading in KINDS.items():
        chosen = [(issue, text) for k, issue, text, _ in found if k == kind]
        if chosen:
            lines += [f"### {heading}", ""] + [f"- {text} ({issue})" for issue, text in chosen] + [""]
    return "\n".join(lines)


def main(args):
    found = entries()
    if not args:
        print(section("Unreleased", found))
        return 0
    if len(args) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    target = ROOT / "CHANGELOG.md"
    old = target.read_text(encoding="utf-8") if target.exists() else HEAD
    body = old[len(HEAD):] if old.startswith(HEAD) else "\n" + old
    new = HEAD + "\n" + section(f"{args[0]} ({args[1]})", found) + body
    part = target.with_suffix(".part")
    part.write_text(new, encoding="utf-8")
    part.replace(target)
    for *_, file in found:
        file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
