#!/usr/bin/env bash
# Runs every fuzz target for TIME seconds, one after the other, from its committed corpus on: those
# named as arguments, or all. Stops at the first finding, which cargo-fuzz says how to repeat.
# Needs cargo-fuzz. What is found on the way goes to target/fuzz-corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
seconds=${TIME:-600}
# The pinned compiler has what fuzzing needs, but keeps it for nightly builds.
export RUSTC_BOOTSTRAP=1

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 1
fi
for crate in models vision server trainer/checkpoints; do
    for target in $(cd "$crate" && cargo fuzz list); do
        if [ $# -gt 0 ] && [[ " $* " != *" $target "* ]]; then
            continue
        fi
        found=$root/target/fuzz-corpus/$target
        mkdir -p "$found"
        echo "== $crate: $target, $seconds s"
        (cd "$crate" && cargo fuzz run --target-dir "$root/target/fuzz" "$target" "$found" "fuzz/corpus/$target" -- \
            -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -timeout=10)
    done
done
