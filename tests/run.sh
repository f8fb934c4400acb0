#!/bin/sh
# Runs all tests, those in network namespaces included; fails when these cannot run, unless told otherwise.
# usage: tests/run.sh [--no-root]
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

case "${1-}" in
"") kernel_tests=yes ;;
--no-root) kernel_tests=no ;;
*)
	echo "usage: tests/run.sh [--no-root]" >&2
	exit 2
	;;
esac

# Everything that this run makes carries this prefix, so that an interruption can clean up after it.
NATD_LAB_PREFIX="nlb$$-"
export NATD_LAB_PREFIX
log=$(mktemp)

trap 'rm -f "$log"; tests/kit/clean_up.sh "$NATD_LAB_PREFIX"' EXIT
trap 'exit 130' HUP INT TERM

if [ "$kernel_tests" = no ]; then
	export NATD_TESTS_NO_ROOT=1
else
	tests/setup.sh
	if [ "$(id -u)" -ne 0 ]; then
		if ! command -v sudo >/dev/null 2>&1; then
			echo "run: the kernel tests need root: run this as root, install sudo, or say --no-root" >&2
			exit 1
		fi
		sudo true
		# Cargo builds as the user and starts each test through this.
		host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
		keep=NATD_LAB_PREFIX,NATD_LAB_NAT,NATD_LAB_LOG,NATD_BIN,NATD_STRONGSWAN6,CARGO_MANIFEST_DIR,CARGO_TARGET_DIR,RUST_BACKTRACE
		export "CARGO_TARGET_${host}_RUNNER=sudo --preserve-env=$keep"
	fi
fi

echo "== build"
cargo build --workspace --locked
target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
NATD_BIN=${NATD_BIN:-$target/debug/natd}
export NATD_BIN
echo "== test"
result=0
# --no-fail-fast: the summary below is of everything. tee would hide the exit code, so it goes through a file.
{ cargo test --workspace --locked --no-fail-fast 2>&1 || echo "cargo test failed"; } | tee "$log"
if grep -q '^cargo test failed$' "$log"; then
	result=1
fi

echo "== summary"
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "%d passed, %d failed, %d ignored\n", passed, failed, ignored }' "$log"
if [ "$kernel_tests" = no ]; then
	# A skipped test passes and says so; cargo shows that only for failing tests.
	echo "kernel tests were skipped (--no-root)"
fi
grep '^test .* FAILED$' "$log" | sort -u || true
exit "$result"
