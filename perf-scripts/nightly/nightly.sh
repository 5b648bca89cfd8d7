#!/usr/bin/env bash
# nightly.sh [KEEP]
#
# One night's work, from a clean checkout: hardening goes on where its ledger says, every row runs several times and is kept
# below KEEP (default: target/nightly) by date and commit, each row of KEEP's own baseline is replaced if no number of it is worse,
# the gate is shown to close, other engines run the same rows, and a page shows tonight beside the nights before. It answers: did
# anything break or become slower than it was, and where does it stand?
#
# The baseline of the nights is KEEP/baselines/<profile asked for>, not the checkout's: that stays clean, as a baseline is measured
# from a clean commit only. The first night measures it. It is this machine's; after a change of machine, or for a loss that
# is accepted: nsbench refresh-baselines --baselines KEEP/baselines/<profile> --accept.
#
# What it is told by variables: NSBENCH_PROFILE (auto), NIGHTLY_REPEATS (5), NIGHTLY_HARD_MINUTES (240), NIGHTLY_KEEP_DAYS (90),
# NSBENCH_DIR (where databases are put). Exits with 1 if hardening found something, a row failed, or a critical row became worse
# or is missing; with 3 if that cannot be told; everything is done all the same, and the page is written.

source "$(dirname "$0")/../common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# -le 1 ]] || usage 2
need cargo
root=$(root_dir)
cd "$root"
keep=${1:-${CARGO_TARGET_DIR:-$root/target}/nightly}
mkdir -p "$keep"
keep=$(cd "$keep" && pwd)
tonight=$keep/$(date -u +%Y%m%d)-$(git rev-parse --short HEAD 2>/dev/null || echo nogit)
mkdir -p "$tonight"
repeats=${NIGHTLY_REPEATS:-5}
worst=0

# Goes on after a failure and remembers the worst: 1 over 3 over 0.
step() {
    local code=0
    echo "==> $*"
    "$@" || code=$?
    case $code in
        0) ;;
        3) [[ $worst == 1 ]] || worst=3 ;;
        *) worst=1 ;;
    esac
}

# One after the other: built together, the engine that nsbench measures has the instruments of nshard.
cargo build --release --package nsbench
cargo build --release --package nshard
nsbench=${CARGO_TARGET_DIR:-$root/target}/release/nsbench
nshard=${CARGO_TARGET_DIR:-$root/target}/release/nshard

"$nsbench" doctor | tee "$tonight/doctor.txt"
step "$nshard" nightly --minutes "${NIGHTLY_HARD_MINUTES:-240}" --ledger "$keep/LEDGER.md"
step "$nsbench" run --repeats "$repeats" --json "$tonight/results"
step "$nsbench" gate-test
step "$nsbench" versus --quick --json "$tonight/results/versus.json"

# A baseline is measured anew by itself: only a clean commit of a machine that fits its profile may make one.
asked=${NSBENCH_PROFILE:-auto}
baselines=$keep/baselines/${asked//\//_}
if compgen -G "$baselines/*/*/*.json" >/dev/null; then
    step "$nsbench" refresh-baselines --baselines "$baselines" --repeats "$repeats"
else
    step "$nsbench" capture-baseline --baselines "$baselines" --repeats "$repeats"
fi

# Each night's results lie in a directory of their own, one level down.
mkdir -p "$keep/history"
ln -sfn "$tonight/results" "$keep/history/$(basename "$tonight")"
step "$nsbench" report "$tonight/results" --history "$keep/history" --output "$tonight/report.html"
ln -sfn "$tonight/report.html" "$keep/latest.html"

# Results are small; pages and ledgers stay as long.
find "$keep" -mindepth 1 -maxdepth 1 -type d -name '20*' -mtime +"${NIGHTLY_KEEP_DAYS:-90}" -exec rm -r {} +
find -L "$keep/history" -maxdepth 1 -type l -delete
echo "$tonight/report.html"
exit $worst
