#!/bin/sh
# Measures what home NAT gets wrong, with real packets in network namespaces: the kernel's masquerade beside natd.
# Exits with 1 when natd is wrong in a row. --markdown prints the table for a README; names of rows choose among them.
# usage: tests/yardstick.sh [--markdown] [ROW...]
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

NATD_LAB_PREFIX="nly$$-"
export NATD_LAB_PREFIX
as_root=
yardstick=

# shellcheck disable=SC2086 # sudo and its option are two words
trap '[ -z "$yardstick" ] || $as_root kill $yardstick 2>/dev/null || true; tests/kit/clean_up.sh "$NATD_LAB_PREFIX"' EXIT
trap 'exit 130' HUP INT TERM

tests/setup.sh --no-vpn >&2
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "yardstick: network namespaces need root: run this as root, or install sudo" >&2
		exit 1
	fi
	as_root="sudo --preserve-env=NATD_LAB_PREFIX"
	sudo true
fi

echo "Building natd ..." >&2
cargo build --quiet --release --locked -p natd
# Not --release: that profile aborts on a panic, and a step that fails is a panic.
cargo build --quiet --locked -p testkit --example yardstick
target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

$as_root env NATD_BIN="$target/release/natd" "$target/debug/examples/yardstick" "$@" &
yardstick=$!
result=0
wait "$yardstick" || result=$?
yardstick=
exit "$result"
