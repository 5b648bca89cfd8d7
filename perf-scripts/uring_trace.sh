#!/usr/bin/env bash
# uring_trace.sh ROW [nsbench options]
#
# Counts what one row asks of io_uring: requests by kind, those that were handed to a kernel worker (each costs a thread's
# wake-up: should be none of reads), completions that found no room, and time from submission to completion. It answers: is the
# ring used as it should be? Needs root and perf.

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -ge 1 ]] || usage 2
need perf linux-tools
[[ $(id -u) == 0 ]] || unfit "needs root"
events=io_uring:io_uring_submit_req
perf_sees $events || unfit "needs the tracepoint $events"
for event in complete queue_async_work cqe_overflow; do
    perf_sees "io_uring:io_uring_$event" && events+=,io_uring:io_uring_$event
done
row=$1
shift
find_bench
out=$(out_dir)

traced "$events" --filter "$row" "$@"
perf script -i "$out/perf.data" -F comm,pid,tid,time,event,trace 2>/dev/null >"$out/events.txt"
awk -v own="$(cat "$out/pid")" '
    function after(word,    at) {
        for (at = 1; at < NF; at++) if ($at == word) { sub(",", "", $(at + 1)); return $(at + 1) }
        return ""
    }
    {
        time = ""; event = ""
        for (i = 1; i < NF && time == ""; i++) {
            if ($i ~ /^[0-9]+\/[0-9]+$/) process = int($i)
            if ($i ~ /^[0-9]+\.[0-9]+:$/) { time = $i; sub(":", "", time); event = $(i + 1) }
        }
    }
    # Only a request of ours is followed; workers and completions belong to it, whoever runs then.
    event ~ /submit_req/ && process == own { kind = after("opcode"); request = after("req"); kinds[kind]++; begun[request] = time; of[request] = kind; next }
    event ~ /queue_async_work/ {
        request = after("request"); if (request == "") request = after("req")
        if (request in begun) workers[of[request]]++
        next
    }
    event ~ /cqe_overflow/ && process == own { overflows++; next }
    event ~ /complete/ {
        request = after("req")
        if (request in begun) { printf "%s %.1f\n", of[request], (time - begun[request]) * 1e6 >"/dev/stderr"; delete begun[request] }
    }
    END {
        for (kind in kinds) printf "%-12s %9d requests, %d handed to a kernel worker\n", kind, kinds[kind], workers[kind]
        printf "completions without room: %d\n", overflows
    }
' "$out/events.txt" 2>"$out/latency.txt" | tee "$out/counts.txt"
sort -k1,1 -k2,2n "$out/latency.txt" | awk '
    function show() { if (n) printf "%s: median %.1f us, p99 %.1f us, slowest %.1f us\n", kind, t[int((n + 1) / 2)], t[int(n * 0.99 + 0.999)], t[n]; n = 0 }
    $1 != kind { show(); kind = $1 }
    { t[++n] = $2 }
    END { show() }
'
echo "$out"
