#!/bin/sh
# Benchmarks of natd, as Markdown on standard output.
#
#   tests/bench.sh            everything; the data path needs root (network namespaces)
#   tests/bench.sh decide     decision, rewrite and memory only; needs no rights
#   tests/bench.sh path [N]   the data path beside plain masquerade only, N rounds (5)
#   tests/bench.sh scope [N]  iperf3 through masquerade, alone and with natd for VPNs only beside it, N rounds (5)
#   tests/bench.sh vpn [N]    VPN sessions: decision and memory, and the data path beside UDP, N rounds (9); root
#   tests/bench.sh noise [N]  masquerade beside masquerade: how far ratios are from 1 by chance
#
# NATD=FILE takes that binary in place of the one built here.
set -eu
cd "$(dirname "$0")/.."

part=${1:-all}
rounds=${2:-}
case $part in
all | decide | vpn | path | scope | noise) ;;
*)
    sed -n 's/^# \{0,1\}//p' "$0" | sed -n 2,10p >&2
    exit 2
    ;;
esac
if [ "$part" != decide ] && [ "$(id -u)" != 0 ]; then
    echo "bench.sh: the data path is measured in network namespaces: run it as root, or 'tests/bench.sh decide'" >&2
    exit 1
fi

cargo build --quiet --release -p natd -p natd-bench
target=${CARGO_TARGET_DIR:-target}/release
natd=${NATD:-$target/natd}

echo "# Benchmarks"
echo
echo "- CPU: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
echo "- kernel: $(uname -sr)"
echo "- load before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
echo "- natd: $(git describe --always --dirty 2>/dev/null || echo unknown), $(rustc --version)"
size=$(stat -c %s "$natd")
# It was 1.31 MB before there was diagnosis, whose trackers, report and taps, and libpcap's wrapper, take the rest.
# Without libpcap (--no-default-features) it is about 60 kB less.
if [ "$size" -le 1800000 ]; then kept=yes; else kept='**no**'; fi
echo
echo "| binary, stripped | bytes | target | kept |"
echo "|---|---|---|---|"
echo "| natd | $size | ≤ 1,800,000 | $kept |"

if [ "$part" = all ] || [ "$part" = decide ]; then
    echo
    "$target/natd-bench" decide
fi
if [ "$part" = all ] || [ "$part" = vpn ]; then
    echo
    "$target/natd-bench" vpn
    echo
    "$target/natd-bench" vpn-path "$natd" "${rounds:-9}"
fi
if [ "$part" = all ] || [ "$part" = path ]; then
    echo
    "$target/natd-bench" path "$natd" "${rounds:-5}"
fi
if [ "$part" = scope ]; then
    cargo build --quiet -p testkit --example scope_speed
    echo
    NATD_BIN=$natd NATD_LAB_LOG=info "${CARGO_TARGET_DIR:-target}/debug/examples/scope_speed" "${rounds:-5}"
fi
if [ "$part" = noise ]; then
    echo
    "$target/natd-bench" path masquerade "${rounds:-5}"
fi
echo
echo "Load after: $(cut -d ' ' -f 1-3 /proc/loadavg)"
