#!/bin/sh
# The account that everything runs as. It is there before the files that it owns.
set -e
if ! getent group tollgate >/dev/null; then
	groupadd --system tollgate
fi
if ! getent passwd tollgate >/dev/null; then
	useradd --system --gid tollgate --home-dir /var/lib/tollgate --no-create-home --shell /usr/sbin/nologin tollgate
fi
