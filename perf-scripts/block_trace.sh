#!/usr/bin/env bash
# block_trace.sh ROW [nsbench options]
#
# Records the device's requests while one row runs and prints, for each kind (R read, W write, F flush), how many there
# were, their mean size and the median and p99 from issue to completion. Everything on the device is counted, other
# processes' requests too: run it on an idle machine. Needs root and blktrace.

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -ge 1 ]] || usage 2
need blktrace
need blkparse blktrace
need findmnt util-linux
[[ $(id -u) == 0 ]] || unfit "needs root"
row=$1
shift
bench=$(nsbench_path)
out=$(out_dir)
scratch=$out/scratch
mkdir -p "$scratch"
disk=$(lsblk -sno PATH,TYPE -l "$(findmnt -no SOURCE --target "$scratch")" | awk '$2 == "disk" { print $1; exit }')
[[ -n $disk ]] || unfit "finds no block device below $scratch"

blktrace -d "$disk" -D "$out" -o trace -a issue -a complete >/dev/null &
tracer=$!
trap 'kill "$tracer" 2>/dev/null || true' EXIT
"$bench" --filter "$row" --dir "$scratch" "$@" | tee "$out/nsbench.txt"
kill -INT "$tracer"
wait "$tracer" || true
trap - EXIT

# action, kind, sector, sectors, seconds
blkparse -q -D "$out" -i trace -f '%a %d %S %n %T.%9t\n' >"$out/requests.txt"
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
