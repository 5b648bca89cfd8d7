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

out_dir() {
    local root dir
    root=$(root_dir)
    dir="${CARGO_TARGET_DIR:-$root/target}/perf-out/$(date +%Y%m%d-%H%M%S)-$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo nogit)"
    mkdir -p "$dir"
    echo "$dir"
}
