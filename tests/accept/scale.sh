#!/bin/bash
# Many of everything. Usage: tests/accept/scale.sh [SECONDS=20]
# 1,000 recorders in real time (beside native ext4), 10,000 tenants in memory and in a scrape, 1,000 changed accounts a second on their way to the
# database, a large directory moved between tenants with limits, and writing into a tenant that is 99 % full beside an empty one.
. "$(dirname "$0")/lib.sh"
SECONDS_EACH=${1:-20} CALLS=1000 TENANTS=10000
SCALE="$ROOT/tests/accept/scale.py"
cat >"$CONFIG" <<'TOML'
[[rules]]
path = "{tenant}/%Y/%m/%d"
[rules.limits.tenant]
max_bytes = 2000000000
max_files = 1000000
TOML
memory_kb() { awk '/^VmRSS/ {print $2}' "/proc/$DAEMON/status"; }
below() { python3 -c 'import sys; sys.exit(float(sys.argv[1]) >= float(sys.argv[2]))' "$1" "$2"; }
# Every recorder is a thread, and a descriptor here and one in the daemon.
ulimit -n "$(ulimit -Hn)"
mount_store

# record DIR: prints the recorders' JSON
record() {
    mkdir -p "$1/scale/$(date -u +%Y/%m/%d)" "$1/scale/$(date -u -d tomorrow +%Y/%m/%d)"
    "$RECORD_CALLS" "$1" --tenant scale --calls $CALLS --seconds "$SECONDS_EACH" --frame 320 --real-time --json
}
mkdir "$WORK/native"
native=$(record "$WORK/native" | figure late_writes)
rm -rf "$WORK/native"
json=$(record "$MNT")
late=$(figure late_writes <<<"$json")
check "$CALLS recorders" "$late of $((CALLS * SECONDS_EACH * 50)) frames more than 20 ms late (native ext4: $native), \
$(figure refused_bytes <<<"$json") bytes refused, every byte read back: $(figure ok <<<"$json")" [ "$late $(figure ok <<<"$json")" = "0 true" ]
open_kb=$(memory_kb)
rm -rf "$MNT/scale"

before_kb=$(memory_kb)
python3 "$SCALE" tenants "$MNT" $TENANTS
sync; echo 2 >/proc/sys/vm/drop_caches
# The kernel forgets in its own time, and the daemon gives memory back every ten seconds.
per_account() { echo $((($(memory_kb) - before_kb) * 1024 / (TENANTS * 2))); }
small() { [ "$(per_account)" -lt 1024 ]; }
await 60 small
per_account=$(per_account)
check "$TENANTS tenants of two directories" "$per_account bytes of memory for each directory ($open_kb KiB in all with $CALLS recordings open)" \
    [ "$per_account" -lt 1024 ]
scrape_ms() {
    for _ in $(seq 11); do
        curl -s -o "$WORK/scrape" -w '%{time_total}\n' --unix-socket "$STORE/admin.sock" http://tallyfs/metrics
    done | sort -n | awk 'NR == 6 {print $1 * 1000}'
}
took=$(scrape_ms)
check "a scrape" "$took ms for $(grep -vc '^#' "$WORK/scrape") figures of $(sed -n 's/^tallyfs_accounts //p' "$WORK/scrape") accounts" below "$took" 100
lag=$(python3 "$SCALE" lag "$MNT" "$STORE/tallyfs.db" 1000 10)
check "1,000 changed accounts a second" "the database is behind by $lag" below "${lag%% *}" 2.0
python3 "$SCALE" tree "$MNT/tenant-00001/large" 20000
begun=$(now_ms); mv "$MNT/tenant-00001/large" "$MNT/tenant-00002/"; took=$(($(now_ms) - begun))
check "a directory of 20,000 files moved to another tenant" "$took ms; usage is what is found" [ "$(usage_of "$MNT")" = "$(python3 "$SCAN" mount "$MNT")" ]
full=$(python3 "$SCALE" full "$MNT/tenant-00003" "$MNT/tenant-00004" 2000000000)
check "99 % full beside empty" "$full" below 0.98 "${full%% *}"
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
finish
