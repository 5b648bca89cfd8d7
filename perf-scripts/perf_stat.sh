#!/usr/bin/env bash
# perf_stat.sh ROW [nsbench options]
#
# Counts events of one row's whole process, set-up and the engine's own threads included, which the counters in results do
# not cover: cycles and instructions, cache, branch and TLB misses where the processor's counters can be read; elsewhere faults,
# switches, migrations and system calls by number. It answers: is it the processor, memory, or the kernel?

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -ge 1 ]] || usage 2
need perf linux-tools
row=$1
shift
find_bench
out=$(out_dir)

events=task-clock,page-faults,context-switches,cpu-migrations
if ! perf_counts cycles; then
    echo "no hardware counters here: software events only" >&2
else
    events+=,cycles,instructions,cache-references,cache-misses,branch-misses,dTLB-load-misses
fi
for event in raw_syscalls:sys_enter block:block_rq_issue; do
    if [[ $(id -u) == 0 ]] && perf_sees $event; then events+=,$event; fi
done
perf stat -e "$events" -o "$out/stat.txt" -- "$BENCH" --filter "$row" "$@" | tee "$out/nsbench.txt"
cat "$out/stat.txt"
echo "$out"
