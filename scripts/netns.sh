#!/usr/bin/env bash
# usage: netns.sh COMMAND [ARGUMENT...]
# Runs a command in a network namespace of its own, so that control planes which listen on all addresses reach nobody.
# Its loopback has the addresses 10.9.9.1 to 10.9.9.9 too: some control planes refuse 127.0.0.1. nsenter and not
# "ip netns exec", which hides the mounts that a container engine needs. Needs root.
set -euo pipefail
for tool in ip nsenter; do
	command -v "$tool" >/dev/null || {
		echo "netns.sh needs $tool" >&2
		exit 1
	}
done
name=tollgate-$$
ip netns add "$name"
trap 'ip netns delete "$name"' EXIT
ip -n "$name" link set lo up
for n in 1 2 3 4 5 6 7 8 9; do ip -n "$name" address add "10.9.9.$n/32" dev lo; done
TOLLGATE_NETNS="$name" nsenter --net="/run/netns/$name" "$@"
