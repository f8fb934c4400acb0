#!/bin/sh
# Builds the driver with LLVM's coverage counters, which a stable compiler has too, and runs it:
#   tests/fuzz/run.sh TARGET [--time SECS] [--seed N] [--corpus DIR] [--write]
#   tests/fuzz/run.sh TARGET --once FILE
set -eu
cd "$(dirname "$0")/../.."
host=$(rustc -vV | sed -n 's/^host: //p')
coverage='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3'
coverage="$coverage -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target named, what runs at build time is not instrumented.
RUSTFLAGS="$coverage" cargo build --quiet --profile fuzz -p natd-fuzz --bin natd-fuzz --target "$host"
exec "${CARGO_TARGET_DIR:-target}/$host/fuzz/natd-fuzz" "$@"
