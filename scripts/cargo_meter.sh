#!/usr/bin/env bash
# One cargo command in meter/: cargo_meter.sh test|clippy|fmt [words]. Without cargo it says what is
# left out and succeeds: Tollgate meters by ext_proc there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../meter"
command=$1
shift
command -v cargo >/dev/null || {
	echo "no cargo: meter/ is not looked at by $command"
	exit 0
}
case $command in
fmt) exec cargo fmt --check ;;
test) exec cargo test --quiet --workspace --locked --offline --target-dir ../.cache/meter-target "$@" ;;
clippy) exec cargo clippy --quiet --workspace --locked --offline --target-dir ../.cache/meter-target "$@" -- -D warnings ;;
esac
echo "no such command: $command" >&2
exit 2
