#!/bin/bash
# A million files. Usage: tests/accept/million.sh [FILES=1000000]
# The files are made as sealed sizes without content, directly in the store of a stopped daemon: enough for everything that never
# opens a file. Then: start with a full scan, start after a clean stop, start after a kill, listing, memory.
. "$(dirname "$0")/lib.sh"
FILES=${1:-1000000}
MOUNT_WAIT=600
printf '[[rules]]\npath = "{tenant}/%%Y/%%m/%%d"\n' >"$CONFIG"
below() { python3 -c 'import sys; sys.exit(float(sys.argv[1]) >= float(sys.argv[2]))' "$1" "$2"; }
start_ms() { local begun; begun=$(now_ms); mount_store; START_MS=$(($(now_ms) - begun)); }
memory_mb() { awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$DAEMON/status"; }
scanned_equals() { [ "$1" = "$(python3 "$SCAN" mount "$MNT")" ]; }

mount_store; stop_store
python3 - "$STORE/data" "$FILES" <<'PY'
import os, sys
top, files = sys.argv[1], int(sys.argv[2])
# 8,000 bytes of audio and more: one to four body pages, sealed sizes by FORMAT.md section 4.
sizes = [20480 + 4096 * (pages + 1) + 100 * pages for pages in range(1, 5)]
per_day, made = 500, 0
while made < files:
    day = made // per_day
    path = f"{top}/tenant{day % 50}/2026/{day // 50 % 12 + 1:02}/{day // 600 + 1:02}"
    os.makedirs(path, exist_ok=True)
    at = os.open(path, os.O_DIRECTORY)
    for n in range(min(per_day, files - made)):
        fd = os.open(f"{made + n:08x}-call.wav", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at)
        os.ftruncate(fd, sizes[n % 4])
        os.close(fd)
    os.close(at)
    made += per_day
PY
rm -f "$STORE"/tallyfs.db*
expected=$(python3 "$SCAN" store "$STORE")

start_ms; full=$START_MS
rate=$((FILES * 1000 / (full + 1)))
usage=$(usage_of "$MNT")
check "full scan of $FILES files, warm" "$full ms, $rate files/s, usage $usage" below 100000 "$rate"
check "usage is the scan" "$usage" [ "$usage" = "$expected" ]
scan_mb=$(memory_mb)
stop_store
start_ms
check "start after a clean stop" "$START_MS ms" below "$START_MS" 1000
idle_mb=$(memory_mb)
dirs=${expected##* }
check "memory without a look-up" "$idle_mb MB, $dirs directories ($scan_mb MB after the scan)" below "$idle_mb" $((64 + dirs / 1000 + 1))
begun=$(now_ms); entries=$(ls -lR "$MNT" | wc -l); took=$(($(now_ms) - begun))
check "ls -lR" "$((entries * 1000 / (took + 1))) lines/s, then $(memory_mb) MB" [ "$entries" -gt "$FILES" ]
sync; echo 2 >/proc/sys/vm/drop_caches
forgotten() { [ "$(memory_mb)" -lt $((idle_mb + 64)) ]; }
await 60 forgotten
check "memory when the kernel has forgotten the files" "$(memory_mb) MB" forgotten
# A thousand files that change, then a kill.
for n in $(seq 1000); do echo audio >"$MNT/tenant$((n % 50))/new-$n"; done
kill_daemon
detach
start_ms
check "start after a kill with 1,000 dirty files" "$START_MS ms" below "$START_MS" 1000
check "usage after the kill" "$(usage_of "$MNT")" scanned_equals "$(usage_of "$MNT")"
stop_store
finish
