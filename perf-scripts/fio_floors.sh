#!/usr/bin/env bash
# fio_floors.sh DIR
#
# Measures with fio, in files it makes in DIR and removes again, what `nsbench --suite floor` measures by itself: 4 KiB
# O_DIRECT writes into a written file, each made durable by fdatasync; random 16 KiB O_DIRECT reads at depth 1 and 32;
# sequential reads in 256 KiB pieces at depth 8. It answers: are the floors right that every figure is read against? If the two disagree by more than a few percent, trust neither.

source "$(dirname "$0")/common.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage
[[ $# == 1 && -d $1 ]] || usage 2
need fio
file=$1/fio-floors.tmp
trap 'rm -f "$file"' EXIT

# The whole file is written first, so that no write below allocates.
fio --name=fill --filename="$file" --size=256m --rw=write --bs=1m --direct=1 --end_fsync=1 >/dev/null

job() {
    local name=$1
    shift
    echo "== $name"
    fio --name="$name" --filename="$file" --size=256m --direct=1 --runtime=5 --time_based "$@" |
        grep -E 'IOPS|bw=|50.00th|99.00th' | sed 's/^ */   /'
}
job append_4k_flush --rw=write --bs=4k --ioengine=psync --fdatasync=1
job read_16k_depth_1 --rw=randread --bs=16k --ioengine=psync
job read_16k_depth_32 --rw=randread --bs=16k --ioengine=io_uring --iodepth=32
job read_sequential --rw=read --bs=256k --ioengine=io_uring --iodepth=8
