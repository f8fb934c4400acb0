#!/bin/sh
# The fault lab: breaks real VPNs in every way it knows and asks `natd diagnose` why. Prints what was found for what.
# usage: tests/faults.sh [--runs 10] [--first 1] [--jobs 8] [--scope both|all|vpn] [--only CODE,NAME,-] [--markdown]
#                        [--keep FOLDER] [--unasked]
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

usage() {
	sed -n 's/^# usage: /usage: /p; s/^#                        /                       /p' "$0" >&2
	exit 2
}
while [ $# -gt 0 ]; do
	case "$1" in
	--markdown) export NATD_FAULTS_MARKDOWN=1 ;;
	--unasked) export NATD_FAULTS_UNASKED=1 ;;
	--runs | --first | --jobs | --scope | --only | --keep)
		[ $# -ge 2 ] || usage
		name=$(printf '%s' "${1#--}" | tr '[:lower:]' '[:upper:]')
		export "NATD_FAULTS_$name=$2"
		shift
		;;
	*) usage ;;
	esac
	shift
done

NATD_LAB_PREFIX="fl$$x"
export NATD_LAB_PREFIX
trap 'tests/kit/clean_up.sh "$NATD_LAB_PREFIX"' EXIT
trap 'exit 130' HUP INT TERM

tests/setup.sh
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "faults: network namespaces need root: run this as root, or install sudo" >&2
		exit 1
	fi
	sudo true
	host=$(rustc -vV | sed -n 's/^host: //p' | tr '[:lower:]-' '[:upper:]_')
	keep=NATD_FAULTS_RUNS,NATD_FAULTS_FIRST,NATD_FAULTS_JOBS,NATD_FAULTS_SCOPE,NATD_FAULTS_ONLY,NATD_FAULTS_MARKDOWN
	keep=$keep,NATD_FAULTS_KEEP,NATD_FAULTS_UNASKED,NATD_LAB_PREFIX,NATD_LAB_LOG,NATD_BIN,NATD_STRONGSWAN6,CARGO,CARGO_MANIFEST_DIR,CARGO_TARGET_DIR,RUST_BACKTRACE
	export "CARGO_TARGET_${host}_RUNNER=sudo --preserve-env=$keep"
fi
cargo build --locked --quiet -p natd -p testkit
cargo test --locked --test faults -- --ignored --nocapture a_campaign
