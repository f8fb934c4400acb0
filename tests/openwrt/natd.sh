#!/bin/sh
# Stands in for natd. `status` ends with the number in $IPKG_INSTROOT/status; a natd that stops, 1, has stopped, 4, the
# next time. `check` prints $IPKG_INSTROOT/findings, keeps the file that it was shown as $IPKG_INSTROOT/checked, and
# ends with 1 if there is a problem among the findings.
case "$1 $2" in
"status ")
	status=$(cat "$IPKG_INSTROOT/status")
	[ "$status" != 1 ] || echo 4 >"$IPKG_INSTROOT/status"
	exit "$status"
	;;
"check --config")
	cp "$3" "$IPKG_INSTROOT/checked"
	cat "$IPKG_INSTROOT/findings"
	! grep -q '^problem' "$IPKG_INSTROOT/findings"
	;;
*)
	echo "natd.sh: unexpected: $*" >&2
	exit 2
	;;
esac
