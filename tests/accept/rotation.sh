#!/bin/bash
# All recordings are brought under new keys while others are made and read. Usage: tests/accept/rotation.sh [FILES=10000] [KILLS=5]
# 20 recordings in real time, a reader of random files, `tallyfs keys rotate`; once undisturbed, once with a daemon that is killed
# again and again under a keeper: the next goes on. Then the old keys are destroyed, and everything still opens.
. "$(dirname "$0")/lib.sh"
FILES=${1:-10000} KILLS=${2:-5}
ROTATION="$ROOT/tests/accept/rotation.py"
config_for_kills
mount_store --supervise --give-up-after 1000000
python3 "$ROTATION" make "$MNT/old" "$FILES"

child() { pgrep -P "$DAEMON" | head -1; }
under() { "$TALLYFS" keys list "$STORE" --json | python3 -c 'import json, sys
print(*(key["recordings"] for key in json.load(sys.stdin)["keys"]))'; }
asked() { curl -s --unix-socket "$STORE/admin.sock" http://tallyfs/api/v1/keys | figure "rotation.$1" 2>/dev/null; }
is_done() { [ "$(asked state)" = done ]; }
none_before_last() { under | python3 -c 'import sys
counts = list(map(int, sys.stdin.read().split()))
sys.exit(any(counts[:-1]))'; }

# around NAME COMMAND...: recorders and a reader go on while COMMAND runs
around() {
    local name=$1; shift
    mkdir -p "$MNT/$name/$(date -u +%Y/%m/%d)"
    "$RECORD_CALLS" "$MNT" --tenant "$name" --calls 20 --seconds 6 --rounds 3 --frame 320 --real-time --json >"$WORK/$name.json" 2>&1 & local calls=$!
    python3 "$ROTATION" read "$MNT/old" "$FILES" >"$WORK/$name.read" & local reader=$!
    sleep 1
    "$@"
    wait "$calls"
    kill "$reader"; wait "$reader"; local read_ok=$?
    local json; json=$(tail -1 "$WORK/$name.json")
    check "$name: 60 recordings meanwhile" "$(figure acknowledged_bytes <<<"$json") bytes, longest write $(figure write_us.max <<<"$json") us, errors $(figure errors <<<"$json")" [ "$(figure ok <<<"$json")" = true ]
    check "$name: files read meanwhile" "$(cat "$WORK/$name.read")" [ "$read_ok" -eq 0 ]
}

quiet() {
    local begun; begun=$(now_ms)
    "$TALLYFS" keys rotate "$STORE" --json >"$WORK/rotate.json" 2>>"$LOG"; local code=$?
    check "rotation of $FILES files" "$(figure changed <<<"$(cat "$WORK/rotate.json")") changed in $(($(now_ms) - begun)) ms, the last of them when the recordings ended; under keys: $(under)" [ "$code" -eq 0 ]
}

killed() {
    "$TALLYFS" keys add "$STORE" >>"$LOG" 2>&1
    curl -s -X POST --unix-socket "$STORE/admin.sock" http://tallyfs/api/v1/keys/rewrap >>"$LOG"
    local seen=""
    for _ in $(seq "$KILLS"); do
        sleep "0.$((RANDOM % 3))$((RANDOM % 10))"
        seen="$seen $(under | awk '{print $NF}')"
        kill -KILL "$(child)"
        back() { [ -n "$(asked state)" ]; }
        await 20 back
    done
    await 120 is_done
    check "the same over $KILLS kills" "under the new key before each kill:$seen; at the end under keys: $(under)" none_before_last
}

around quiet quiet
around killed killed
for id in 1 2; do
    "$TALLYFS" keys destroy "$STORE" $id --yes-destroy $id >>"$LOG" 2>&1
    check "key $id destroyed" "$("$TALLYFS" keys list "$STORE" --json | figure keys | tr -d '\n' | head -c 60)..." [ ! -e "$STORE.key$([ $id = 1 ] || echo .$id)" ]
done
told=$(python3 "$ROTATION" check "$MNT/old" "$FILES"); code=$?
check "every file under the last key" "$told" [ $code -eq 0 ]
check "usage is what stat finds" "$(usage_of "$MNT")" [ "$(usage_of "$MNT")" = "$(python3 "$SCAN" mount "$MNT")" ]
stop_store
"$TALLYFS" fsck "$STORE" >"$WORK/fsck" 2>&1; code=$?
check "fsck" "$(tail -1 "$WORK/fsck")" [ $code -eq 0 ]
mount_store
told=$(python3 "$ROTATION" check "$MNT/old" "$FILES"); code=$?
check "every file after a remount" "$told" [ $code -eq 0 ]
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
finish
