#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time (default 60s), one
# after the other, and stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

duration=${1:-60s}
found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	printf 'fuzz %s in %s for %s\n' "$target" "$(dirname "$file")" "$duration"
	# Making each interesting input smaller takes as long as finding it and is not counted in the time.
	go test "./$(dirname "$file")" -run '^$' -fuzz "^${target}\$" -fuzztime "$duration" -fuzzminimizetime 50x
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | sort |
	xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]+' /dev/null | sed 's/:func /:/')
if [ "$found" -eq 0 ]; then
	echo 'no fuzz target found' >&2
	exit 1
fi
