#!/bin/sh
# Nothing is started: a gateway needs a configuration first. A running one goes on with
# the program that it has, because only its owner knows when streams may be cut.
set -e

# Unpacked below another root (dpkg --root) the names of the owners are not known yet.
owner() {
	path=$1 wanted=$2
	if [ "$(stat -c %U:%G "$path")" = root:root ]; then
		chown "$wanted" "$path"
	fi
}
owner /etc/tollgate root:tollgate
if [ -e /etc/tollgate/config.yaml ]; then
	owner /etc/tollgate/config.yaml root:tollgate
fi
owner /var/lib/tollgate tollgate:tollgate

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	for unit in tollgate tollgate-serve tollgate-vllm; do
		if systemctl --quiet is-active "$unit.service"; then
			echo "$unit.service still runs the old version: systemctl restart $unit"
		fi
	done
fi
