#!/bin/sh
# A purge (deb) takes the ledger, the keys, the logs and the account. rpm knows no purge:
# its removal leaves them, and says so.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
case "${1:-}" in
purge)
	rm -rf /var/lib/tollgate /etc/tollgate
	if getent passwd tollgate >/dev/null; then
		userdel tollgate
	fi
	if getent group tollgate >/dev/null; then
		groupdel tollgate
	fi
	;;
0)
	echo "/var/lib/tollgate has the ledger and the keys; it stays, and so does the account tollgate"
	;;
esac
