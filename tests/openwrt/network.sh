#!/bin/sh
# Stands in for OpenWrt's /lib/functions/network.sh. $IPKG_INSTROOT/interfaces has a line for each interface that is
# up, with its device; the interface with the default route is called `default` there as well.
# shellcheck shell=dash

network_flush_cache() {
	:
}

network_get_device() {
	local found
	found=$(sed -n "s/^$2 //p" "$IPKG_INSTROOT/interfaces")
	unset "$1"
	[ -n "$found" ] && eval "$1=\$found"
}

network_find_wan() {
	network_get_device "$1" default
}
