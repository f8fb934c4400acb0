#!/bin/sh
# Builds the driver with LLVM's coverage counters, which a stable compiler has too, and runs it:
#   tests/fuzz/run.sh TARGET [--time SECS] [--seed N] [--corpus DIR] [--write]
set -eu
cd "$(dirname "$0")/../.."
host=$(rustc -vV | sed -n 's/^host: //p')
flags='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares'
# With a target named, what runs at build time is not instrumented.
RUSTFLAGS=$(echo $flags) cargo build --quiet --profile fuzz -p natd-fuzz --bin natd-fuzz --target "$host"
exec "${CARGO_TARGET_DIR:-target}/$host/fuzz/natd-fuzz" "$@"
