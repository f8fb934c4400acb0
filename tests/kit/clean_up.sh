#!/bin/sh
# Ends and deletes what labs with a prefix have left behind when they were interrupted.
# usage: tests/kit/clean_up.sh PREFIX
set -eu
prefix=${1:?the prefix of the labs}

# Whoever had to be root to make them must be to delete them.
as_root=
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"

ip netns list 2>/dev/null | while read -r name _; do
	case "$name" in
	"$prefix"*)
		for process in $($as_root ip netns pids "$name" 2>/dev/null); do
			$as_root kill -9 "$process" 2>/dev/null || true
		done
		$as_root ip netns del "$name" || true
		;;
	esac
done
for folder in "${TMPDIR:-/tmp}/natd-lab-$prefix"*; do
	[ ! -d "$folder" ] || $as_root rm -rf "$folder"
done
