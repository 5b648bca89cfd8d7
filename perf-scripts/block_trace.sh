#!/usr/bin/env bash
# block_trace.sh ROW [nsbench options]
#
# Records the device's requests while one row runs and prints, for each kind (R read, W write, F flush), how many there
# were, their mean size and the median and p99 from issue to completion. It answers: is the device slow, or what is above it?
# Everything on the device is counted, other processes' requests too: run it on an idle machine. Needs root and blktrace;
# without blktrace, perf's tracepoints, which see every device, do the same.

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -ge 1 ]] || usage 2
[[ $(id -u) == 0 ]] || unfit "needs root"
row=$1
shift
find_bench
out=$(out_dir)
scratch=$out/scratch
mkdir -p "$scratch"

# Leaves lines of: action (D issued, C completed), kind, sector, sectors, seconds.
with_blktrace() {
    local disk tracer
    disk=$(lsblk -sno PATH,TYPE -l "$(findmnt -no SOURCE --target "$scratch")" | awk '$2 == "disk" { print $1; exit }')
    [[ -n $disk ]] || unfit "finds no block device below $scratch"
    blktrace -d "$disk" -D "$out" -o trace -a issue -a complete >/dev/null &
    tracer=$!
    # shellcheck disable=SC2064 # the number of now
    trap "kill $tracer 2>/dev/null || true" EXIT
    "$BENCH" --filter "$row" --dir "$scratch" "$@" | tee "$out/nsbench.txt"
    kill -INT "$tracer"
    wait "$tracer" || true
    trap - EXIT
    blkparse -q -D "$out" -i trace -f '%a %d %S %n %T.%9t\n' >"$out/requests.txt"
}

with_perf() {
    perf record -q -a -e block:block_rq_issue,block:block_rq_complete -o "$out/perf.data" -- \
        "$BENCH" --filter "$row" --dir "$scratch" "$@" | tee "$out/nsbench.txt"
    # ... 40583.59: block:block_rq_issue: 254,0 WS 4096 () 263168 + 8 none,0,0 [nsbench]
    perf script -i "$out/perf.data" -F time,event,trace 2>/dev/null | awk '
        {
            time = $1; sub(":$", "", time)
            action = $2 ~ /issue/ ? "D" : "C"
            plus = 0
            for (i = 3; i <= NF; i++) if ($i == "+") plus = i
            if (plus) print action, $4, $(plus - 1), $(plus + 1), time
        }
    ' >"$out/requests.txt"
}

if command -v blktrace >/dev/null 2>&1 && command -v blkparse >/dev/null 2>&1; then
    need findmnt util-linux
    with_blktrace "$@"
elif command -v perf >/dev/null 2>&1 && perf_sees block:block_rq_issue; then
    with_perf "$@"
else
    unfit "needs blktrace, or perf with the kernel's tracepoints"
fi

awk '
    $1 == "D" { issued[$2 " " $3] = $5; next }
    $1 == "C" && ($2 " " $3) in issued {
        printf "%s %d %.1f\n", substr($2, 1, 1), $4 * 512, ($5 - issued[$2 " " $3]) * 1e6
        delete issued[$2 " " $3]
    }
' "$out/requests.txt" | sort -k1,1 -k3,3n | awk '
    function show() {
        if (n) printf "%s: %d requests, mean %.1f KiB, median %.1f us, p99 %.1f us\n", \
            kind, n, bytes / n / 1024, t[int((n + 1) / 2)], t[int(n * 0.99 + 0.999)]
        n = 0; bytes = 0
    }
    $1 != kind { show(); kind = $1 }
    { t[++n] = $3; bytes += $2 }
    END { show() }
'
echo "$out"
