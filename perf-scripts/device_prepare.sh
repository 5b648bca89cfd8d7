#!/usr/bin/env bash
# device_prepare.sh [--apply] [DIR]
#
# Shows what on this machine disturbs benchmark figures of files in DIR (default: here), one line each. With --apply
# (root) it sets the CPU governor to performance, the device's scheduler to none, write throttling off and huge pages to
# madvise; nothing else is changed, and a reboot undoes all of it. It never formats, trims or unmounts anything.
# It answers: is this machine ready to be measured? `nsbench doctor` says more, and why, and changes nothing.

source "$(dirname "$0")/common.sh"
apply=no
dir=.
for arg in "$@"; do
    case $arg in
        -h | --help) usage ;;
        --apply) apply=yes ;;
        -*) usage 2 ;;
        *) dir=$arg ;;
    esac
done
need findmnt util-linux
need lsblk util-linux

source_dev=$(findmnt -no SOURCE --target "$dir")
device=$(lsblk -sno NAME,TYPE -l "$source_dev" 2>/dev/null | awk '$2 == "disk" { print $1; exit }')
echo "file system: $(findmnt -no FSTYPE,OPTIONS --target "$dir")"
echo "device: ${device:-unknown} ($source_dev)"
queue=/sys/block/${device:-none}/queue
if [[ -d $queue ]]; then
    echo "scheduler: $(cat "$queue/scheduler"); write cache: $(cat "$queue/write_cache"); fua: $(cat "$queue/fua" 2>/dev/null || echo unknown)"
    echo "rotational: $(cat "$queue/rotational") (virtual disks often say 1)"
fi
[[ -r $queue/wbt_lat_usec ]] && echo "write throttling: $(cat "$queue/wbt_lat_usec") us (0 is off)"
thp=/sys/kernel/mm/transparent_hugepage/enabled
echo "huge pages: $(cat $thp 2>/dev/null || echo unknown)"
echo "swap in use: $(awk 'NR > 1 { used += $4 } END { print used + 0 }' /proc/swaps) KiB"
governor=/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
echo "governor: $(cat $governor 2>/dev/null || echo 'not under this system'\''s control')"
echo "load average: $(cut -d' ' -f1-3 /proc/loadavg), cores: $(nproc)"
echo "memlock limit: $(ulimit -l) KiB (registered buffers need the cache to fit)"
case ",$(findmnt -no OPTIONS --target "$dir")," in
    *,noatime,* | *,relatime,*) ;;
    *) echo "note: access times are written on every read; mount with noatime" ;;
esac

[[ $apply == yes ]] || exit 0
[[ $(id -u) == 0 ]] || unfit "--apply needs root"
for file in /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do
    if [[ -w $file ]]; then echo performance >"$file"; fi
done
if [[ -w $queue/scheduler ]]; then
    echo none >"$queue/scheduler"
    echo "scheduler now: $(cat "$queue/scheduler")"
fi
if [[ -w $queue/wbt_lat_usec ]]; then
    echo 0 >"$queue/wbt_lat_usec"
    echo "write throttling now: off"
fi
if [[ -w $thp ]] && ! grep -q '\[always\]' $thp; then
    echo madvise >$thp
    echo "huge pages now: $(cat $thp)"
fi
