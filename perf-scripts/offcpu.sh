#!/usr/bin/env bash
# offcpu.sh ROW [nsbench options]
#
# Records every time a thread of one row leaves the processor and how long it stays away, and prints by thread where it
# waited, the longest first; folded stacks (weights in microseconds) for flamegraph.sh beside it. It answers: what is waited
# for, when the processor is idle? `perf_record.sh` and `nsbench flamegraph` do not see that. Needs root and perf.

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -ge 1 ]] || usage 2
need perf linux-tools
[[ $(id -u) == 0 ]] || unfit "needs root"
perf_sees sched:sched_switch || unfit "needs the tracepoint sched:sched_switch"
row=$1
shift
find_bench
out=$(out_dir)

# A thread that leaves shows its stack; the switch to it says when it was back. Stacks by frame pointers: the kernel's part
# is exact, of ours what has them.
PERF_MORE=(--call-graph fp)
traced sched:sched_switch --filter "$row" "$@"
perf script --no-inline -i "$out/perf.data" -F comm,pid,tid,time,event,ip,sym,trace 2>/dev/null |
    awk -v folded="$out/offcpu.folded" -v own="$(cat "$out/pid")" '
    function away(tid, now,    waited) {
        if (!(tid in left)) return
        waited = (now - left[tid]) * 1e6
        total[where[tid]] += waited
        times[where[tid]]++
        delete left[tid]
    }
    # A switch: who leaves, with its stack below, and who comes.
    /sched_switch:/ {
        time = ""; process = ""
        for (i = 1; i <= NF && time == ""; i++) {
            if ($i ~ /^[0-9]+\/[0-9]+$/) process = int($i)
            if ($i ~ /^[0-9]+\.[0-9]+:$/) { time = $i; sub(":", "", time) }
        }
        match($0, /prev_comm=.* prev_pid=/); comm = substr($0, RSTART + 10, RLENGTH - 20)
        match($0, /prev_pid=[0-9]+/); from = substr($0, RSTART + 9, RLENGTH - 9)
        match($0, /next_pid=[0-9]+/); to = substr($0, RSTART + 9, RLENGTH - 9)
        match($0, /prev_state=[A-Z+]+/); state = substr($0, RSTART + 11, RLENGTH - 11)
        away(to, time)
        # R: it would have gone on. That is the scheduler, not a wait.
        current = (process == own) ? from : ""
        if (current != "") { left[current] = time; where[current] = comm ";" (state ~ /^R/ ? "preempted" : "waits"); frames = "" }
        next
    }
    current != "" && NF >= 2 && $1 ~ /^[0-9a-f]+$/ {
        symbol = $2; sub(/\+0x.*/, "", symbol)
        frames = symbol (frames == "" ? "" : ";" frames)
        next
    }
    NF == 0 && current != "" { if (frames != "") where[current] = where[current] ";" frames; current = "" }
    END {
        for (stack in total) printf "%s %d\n", stack, total[stack] >folded
        for (stack in total) {
            parts = split(stack, part, ";")
            key = part[1] " " part[2] " in " (parts > 3 ? part[parts - 2] : part[parts])
            sum[key] += total[stack]; count[key] += times[stack]
        }
        for (key in sum) printf "%12.1f ms %8d times  %s\n", sum[key] / 1000, count[key], key
    }
' | sort -rn | head -n 25
echo "$out"
