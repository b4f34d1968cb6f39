#!/bin/bash
# 16 processes at a byte limit and at a file limit, 10 slow recorders, again and again. Usage: tests/accept/limits.sh [ROUNDS=20]
. "$(dirname "$0")/lib.sh"
ROUNDS=${1:-20}
BYTES=50000000 FILES=1000 SLOW=2000000
{
    printf '[[rules]]\npath = "{tenant}/{campaign}/{agent}"\n'
    for n in $(seq "$ROUNDS"); do
        printf '[[exceptions]]\npath = "bytes%s"\nmax_bytes = %s\n[[exceptions]]\npath = "files%s"\nmax_files = %s\n' "$n" $BYTES "$n" $FILES
        printf '[[exceptions]]\npath = "slow%s"\nmax_bytes = %s\n' "$n" $((SLOW + n % 4))
    done
} >"$CONFIG"
mount_store

over=0 under=0 lies=0 files_wrong=0 slow_left=0 slow_lost=0
for n in $(seq "$ROUNDS"); do
    # Date directories are made before, so that no recording is lost to FreeSWITCH's own race.
    mkdir -p "$MNT/bytes$n" "$MNT/files$n" "$MNT/slow$n/$(date -u +%Y/%m/%d)"
    out=$(python3 "$ROOT/tests/accept/processes.py" write "$MNT/bytes$n" 16) || { lies=$((lies + 1)); echo "$out"; }
    used=$(python3 "$SCAN" mount "$MNT/bytes$n" | cut -d' ' -f1)
    [ "$used" -gt $BYTES ] && over=$((over + used - BYTES))
    [ "$used" -lt $BYTES ] && under=$((under + BYTES - used))
    python3 "$ROOT/tests/accept/processes.py" create "$MNT/files$n" 16 >/dev/null || lies=$((lies + 1))
    made=$(find "$MNT/files$n" -type f | wc -l)
    [ "$made" -eq $FILES ] || { files_wrong=$((files_wrong + 1)); echo "round $n: $made files of $FILES"; }
    json=$("$RECORD_CALLS" "$MNT" --tenant "slow$n" --calls 10 --seconds 15 --frame 320 --json) || { slow_lost=$((slow_lost + 1)); echo "$json"; }
    used=$(python3 "$SCAN" mount "$MNT/slow$n" | cut -d' ' -f1)
    left=$((SLOW + n % 4 - used))
    [ "$left" -ge 0 ] && [ "$left" -le 3 ] || slow_left=$((slow_left + 1))
done
check "16 writers, $ROUNDS rounds" "$over bytes over, $under bytes unused of $((ROUNDS * BYTES)), $lies with sizes other than acknowledged" [ "$over$under$lies" = 000 ]
check "16 creators, $ROUNDS rounds" "$files_wrong rounds with other than $FILES files" [ $files_wrong -eq 0 ]
check "10 recorders with 320-byte frames, $ROUNDS rounds" "$slow_lost rounds lost acknowledged bytes, $slow_left left more than 3 bytes unused" [ "$slow_lost$slow_left" = 00 ]
check "usage is what stat finds" "$(usage_of "$MNT")" [ "$(usage_of "$MNT")" = "$(python3 "$SCAN" mount "$MNT")" ]
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
finish
