# shellcheck shell=bash
# Shared by the scripts here; sourced, not run.
set -euo pipefail

# Exits with 4: this machine cannot do what was asked.
unfit() {
    echo "$(basename "$0"): $*" >&2
    exit 4
}

need() {
    command -v "$1" >/dev/null 2>&1 || unfit "needs $1${2:+ ($2)}"
}

# Prints the comment block that heads the script.
usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit "${1:-0}"
}

root_dir() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd
}

# The release nsbench, built if need be.
nsbench_path() {
    local root target
    root=$(root_dir)
    (cd "$root" && cargo build --quiet --release --package nsbench) >&2
    target=${CARGO_TARGET_DIR:-$root/target}
    echo "$target/release/nsbench"
}

# Sets BENCH: the program to run, $NSBENCH where that is given.
find_bench() {
    BENCH=${NSBENCH:-}
    [[ -n $BENCH ]] || BENCH=$(nsbench_path)
    [[ -x $BENCH ]] || unfit "finds no program $BENCH"
}

# Whether perf can count this event of a program: it must be there and allowed.
perf_counts() {
    # A processor with two kinds of cores has a line for each, of which one may not have run.
    perf stat -x, -e "$1" -- true 2>&1 | grep -E "^[0-9.]+,[^,]*,[^,]*$1" >/dev/null
}

# Whether perf can record this event of every process.
perf_sees() {
    perf record -q -a -e "$1" -o /dev/null -- true >/dev/null 2>&1
}

# traced EVENTS WORDS...: runs the bench while perf records events of the whole machine into $out/perf.data, and leaves the
# bench's process id in $out/pid, by which its events are told from others'.
traced() {
    local events=$1
    shift
    # shellcheck disable=SC2016,SC2154 # for the inner shell; each script sets $out
    perf record -q -a -e "$events" -m 8M "${PERF_MORE[@]}" -o "$out/perf.data" -- \
        sh -c 'echo $$ >"$0"; exec "$@"' "$out/pid" "$BENCH" "$@" | tee "$out/nsbench.txt"
}
PERF_MORE=()

out_dir() {
    local root dir
    root=$(root_dir)
    dir="${CARGO_TARGET_DIR:-$root/target}/perf-out/$(date +%Y%m%d-%H%M%S)-$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo nogit)"
    mkdir -p "$dir"
    echo "$dir"
}
