#!/bin/bash
# 50 of 1,000 recordings damaged in 19 ways behind a stopped daemon: all found, the others untouched, the rest mended or salvaged.
. "$(dirname "$0")/lib.sh"
damage() { python3 "$ROOT/tests/accept/damage.py" "$@" || FAILED=1; }
PLAN=$WORK/plan.json

# Every recording has its hash and its row.
hashed() {
    "$TALLYFS" scrub "$STORE" --json | python3 -c 'import json, sys
found = json.load(sys.stdin)
sys.exit(any(found[what] for what in ("without_hash", "without_row", "passed_over")))'
}

# Looks at the store, and the answer goes to a file: look NAME COMMAND...
look() { "$TALLYFS" "${@:2}" --json >"$WORK/$1.json" 2>>"$LOG"; CODE=$?; }

printf '[durability]\ncommit_interval_s = 1\n' >"$CONFIG"
mount_store
# Directories are made before, so that no recording is lost to FreeSWITCH's own race.
mkdir -p "$MNT/acme/$(date -u +%Y/%m/%d)"
check "recorders" "980 calls of 4 s" "$RECORD_CALLS" "$MNT" --calls 98 --rounds 10 --seconds 4 >"$WORK/calls.log"
tail -1 "$WORK/calls.log"
damage others "$MNT"
check "hashes" "every recording has one" await 120 hashed
stop_store
damage choose "$STORE" "$PLAN" "$WORK/old"
mount_store
damage rewrite "$MNT" "$PLAN"
check "hashes" "every recording has one after the changes" await 120 hashed
damage remember "$MNT" "$PLAN"
stop_store
look fsck fsck "$STORE"
check "before" "fsck finds $(figure finding_count <"$WORK/fsck.json"), the headers of the crashed recorders" [ "$CODE" -eq 8 ]

damage harm "$STORE" "$PLAN" "$WORK/old"
look fsck fsck "$STORE"
check "fsck" "$(figure finding_count <"$WORK/fsck.json") findings, exit code $CODE" [ "$CODE" -eq 8 ]
look scrub scrub "$STORE"
check "scrub" "$(figure finding_count <"$WORK/scrub.json") findings, exit code $CODE" [ "$CODE" -eq 8 ]
damage found "$PLAN" "$WORK/fsck.json" "$WORK/scrub.json"
damage salvage "$TALLYFS" "$STORE" "$PLAN" "$WORK"
mount_store
damage others_whole "$MNT" "$PLAN"
damage victims_read "$MNT" "$PLAN"
stop_store

look repair fsck "$STORE" --repair
check "fsck --repair" "$(figure left_count <"$WORK/repair.json") of $(figure finding_count <"$WORK/repair.json") findings left, exit code $CODE" [ "$CODE" -eq 8 ]
look after fsck "$STORE"
damage mended "$PLAN" "$WORK/repair.json" "$WORK/after.json"
mount_store
damage others_whole "$MNT" "$PLAN"
damage mended_read "$MNT" "$PLAN"
stop_store
finish
