#!/bin/sh
# dpkg says "remove", rpm how many versions are left; an upgrade stops nothing.
set -e
case "${1:-}" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	for unit in tollgate tollgate-serve tollgate-vllm; do
		systemctl --quiet disable --now "$unit.service" || true
	done
fi
