#!/bin/bash
# SIGKILL of the daemon under load, again and again. Usage: tests/accept/kill9.sh [ROUNDS=100] [SECONDS=3]
# Each round: recordings of two kinds and random operations, SIGKILL within so many seconds, every tenth time within four times as
# many, remount; then every acknowledged byte and operation is there, live usage is what stat finds in the mount, to the byte and the
# file. Recordings are synced and sealed every second, so that kills meet that too. At the end a scan of the store.
. "$(dirname "$0")/lib.sh"
ROUNDS=${1:-100} SECONDS_MAX=${2:-3}
config_for_kills

damaged=0 drifted=0 operations=0 recordings=0 acknowledged=0 slowest=0
mount_store
for round in $(seq "$ROUNDS"); do
    rm -rf "$MNT/buffered" "$MNT/frames"
    # Made before, so that no recording is lost to FreeSWITCH's own race.
    mkdir -p "$MNT/buffered/$(date -u +%Y/%m/%d)" "$MNT/frames/$(date -u +%Y/%m/%d)"
    ledger=$WORK/ledger.$round
    "$RECORD_CALLS" "$MNT" --tenant buffered --calls 8 --seconds 60 --rounds 1000 --first-round "$((round * 1000))" --ledger "$ledger.b" --json >"$WORK/b.json" 2>&1 & b=$!
    "$RECORD_CALLS" "$MNT" --tenant frames --calls 8 --seconds 20 --frame 320 --rounds 1000 --first-round "$((round * 1000))" --ledger "$ledger.f" --json >"$WORK/f.json" 2>&1 & f=$!
    python3 "$ROOT/tests/accept/random_ops.py" run "$MNT/ops" "$WORK/model" "$round" & r=$!
    longest_ms=$((SECONDS_MAX * (round % 10 ? 1000 : 4000)))
    sleep "$(awk -v ms=$((RANDOM * 32768 + RANDOM)) -v most="$longest_ms" 'BEGIN { printf "%.3f", ms % most / 1000 }')"
    kill_daemon
    wait "$b" "$f" "$r"
    detach
    begun=$(now_ms)
    mount_store
    took=$(($(now_ms) - begun))
    [ "$took" -gt "$slowest" ] && slowest=$took
    for kind in b f; do
        [ -f "$ledger.$kind" ] || continue
        json=$("$RECORD_CALLS" "$MNT" --verify-only --ledger "$ledger.$kind" --json)
        recordings=$((recordings + $(figure verified <<<"$json")))
        acknowledged=$((acknowledged + $(awk '{sum += $2} END {printf "%.0f", sum}' "$ledger.$kind")))
        # What was lost before the kill is in the other report.
        for report in "$json" "$(cat "$WORK/$kind.json")"; do
            [ "$(figure ok <<<"$report")" = true ] || { damaged=$((damaged + 1)); echo "round $round: $report"; }
        done
        rm -f "$ledger.$kind"
    done
    python3 "$ROOT/tests/accept/random_ops.py" verify "$MNT/ops" "$WORK/model" || { damaged=$((damaged + 1)); echo "round $round: random operations"; }
    operations=$((operations + $(cat "$WORK/model.count" 2>/dev/null || echo 0)))
    usage=$(usage_of "$MNT") found=$(python3 "$SCAN" mount "$MNT")
    [ "$usage" = "$found" ] || { drifted=$((drifted + 1)); echo "round $round: usage $usage, found $found (bytes files dirs)"; }
done
check "$ROUNDS kills under load" "$damaged rounds with damage; $recordings recordings and $((acknowledged / 1000000)) MB acknowledged, $operations random operations" [ $damaged -eq 0 ]
check "usage after each kill" "$drifted of $ROUNDS rounds drifted" [ $drifted -eq 0 ]
check "start after a kill" "slowest $slowest ms" [ "$slowest" -lt 30000 ]
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
finish
