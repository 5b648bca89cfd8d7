#!/usr/bin/env bash
# flamegraph.sh STACKS.folded [BEFORE.folded]
#
# Renders folded stacks (of perf_record.sh, offcpu.sh or `nsbench flamegraph`) as an SVG beside them. With a second file, the older one, it renders the
# difference: red grew, blue shrank. It answers: where did the time go, and what changed between two builds?

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -ge 1 && $# -le 2 && -f $1 ]] || usage 2
stacks=$1
svg=${stacks%.folded}.svg
if [[ $# == 2 ]]; then
    need inferno-diff-folded 'cargo install inferno'
    inferno-diff-folded "$2" "$stacks" | inferno-flamegraph >"$svg"
elif command -v inferno-flamegraph >/dev/null 2>&1; then
    inferno-flamegraph "$stacks" >"$svg"
elif command -v flamegraph.pl >/dev/null 2>&1; then
    flamegraph.pl "$stacks" >"$svg"
else
    unfit "needs inferno-flamegraph (cargo install inferno) or flamegraph.pl"
fi
echo "$svg"
