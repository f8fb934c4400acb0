#!/bin/sh
# A household in network namespaces: three devices, natd as their router, an internet; beside it the same with
# the kernel's masquerade. Prints what passed and cleans up.
# usage: tests/demo.sh
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

NATD_LAB_PREFIX="nlb$$-"
export NATD_LAB_PREFIX
as_root=
demo=

# shellcheck disable=SC2086 # sudo and its option are two words
trap '[ -z "$demo" ] || $as_root kill $demo 2>/dev/null || true; tests/kit/clean_up.sh "$NATD_LAB_PREFIX"' EXIT
trap 'exit 130' HUP INT TERM

tests/setup.sh --no-vpn
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "demo: network namespaces need root: run this as root, or install sudo" >&2
		exit 1
	fi
	as_root="sudo --preserve-env=NATD_LAB_PREFIX"
	sudo true
fi

echo "Building natd ..."
cargo build --quiet --release --locked -p natd
# Not --release: that profile aborts on a panic, and a check that fails is a panic.
cargo build --quiet --locked -p testkit --example demo
target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

$as_root env NATD_BIN="$target/release/natd" "$target/debug/examples/demo" &
demo=$!
result=0
wait "$demo" || result=$?
demo=
exit "$result"
