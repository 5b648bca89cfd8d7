#!/usr/bin/env bash
# perf_record.sh ROW [nsbench options]
#
# Runs one row (a part of its name, as for `nsbench --filter`) under `perf record` and leaves in target/perf-out/: perf.data,
# the report by symbol, and folded stacks for flamegraph.sh. Samples at 997 Hz, with frame unwinding from DWARF.
# It answers: which functions take the processor's time? The recording covers the row's setup too; `nsbench flamegraph ROW`
# does all of it in one command and keeps what is timed only.

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -ge 1 ]] || usage 2
need perf linux-tools
row=$1
shift
find_bench
out=$(out_dir)

event=cycles
if ! perf_counts cycles; then
    event=cpu-clock
    echo "no hardware counters here: sampling cpu-clock" >&2
fi

perf record -F 997 -e "$event" --call-graph dwarf,16384 -o "$out/perf.data" -- "$BENCH" --filter "$row" "$@"
perf report -i "$out/perf.data" --no-children --stdio --percent-limit 0.5 -g none >"$out/report.txt" 2>/dev/null
if command -v inferno-collapse-perf >/dev/null 2>&1; then
    perf script -i "$out/perf.data" 2>/dev/null | inferno-collapse-perf >"$out/stacks.folded"
elif command -v stackcollapse-perf.pl >/dev/null 2>&1; then
    perf script -i "$out/perf.data" 2>/dev/null | stackcollapse-perf.pl >"$out/stacks.folded"
else
    echo "no stack folder found (inferno or FlameGraph): only perf.data and report.txt" >&2
fi
echo "$out"
