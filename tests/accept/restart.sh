#!/bin/bash
# The daemon is killed and upgraded under load, and nobody notices. Usage: tests/accept/restart.sh [KILLS=100] [UPGRADES=10]
# A keeper (`mount --supervise`) starts the next daemon. 50 recordings in real time, random operations with a model, and operations
# that cannot simply be done twice go on all the while: none fails, every byte is what it should be, usage is what a scan finds.
# OTHER names another build to upgrade to; without it the same one is put in place under a new inode.
. "$(dirname "$0")/lib.sh"
KILLS=${1:-100} UPGRADES=${2:-10}
RESTART="$ROOT/tests/accept/restart.py"
PROGRAM=$WORK/bin/tallyfs
mkdir "$WORK/bin"
cp "$TALLYFS" "$PROGRAM"
config_for_kills
served=$TALLYFS; TALLYFS=$PROGRAM mount_store --supervise --give-up-after 1000000; TALLYFS=$served

# The daemon of now: the keeper's only child.
child() { pgrep -P "$DAEMON" | head -1; }
pause() { sleep "$(awk -v r=$((RANDOM * 32768 + RANDOM)) -v most="$1" 'BEGIN { printf "%.3f", r % most / 1000 }')"; }
takeovers() { grep -c 'took the mount over' "$LOG"; }

# As long as all kills and upgrades take, and some more: each pauses for 0.35 s at the mean, and starts take their time.
seconds=$(((KILLS + UPGRADES) * 6 / 10 + 10))
mkdir -p "$MNT/frames/$(date -u +%Y/%m/%d)"
"$RECORD_CALLS" "$MNT" --tenant frames --calls 50 --seconds 10 --frame 320 --real-time --rounds $((seconds / 10 + 1)) --ledger "$WORK/ledger" --json >"$WORK/calls.json" 2>&1 & calls=$!
python3 "$ROOT/tests/accept/random_ops.py" run "$MNT/ops" "$WORK/model" 1 300 2>"$WORK/ops.err" & ops=$!
python3 "$RESTART" awkward "$MNT/awkward" >"$WORK/awkward.json" 2>"$WORK/awkward.err" & awkward=$!
python3 "$RESTART" large "$MNT/large" >"$WORK/large.json" 2>"$WORK/large.err" & large=$!
sleep 1
killed=0
for n in $(seq "$KILLS"); do
    pid=$(child)
    [ -n "$pid" ] && kill -KILL "$pid" && killed=$((killed + 1))
    pause 700
done
upgraded=0
for n in $(seq "$UPGRADES"); do
    source=${OTHER:-$TALLYFS}
    [ $((n % 2)) -eq 0 ] && source=$TALLYFS
    cp "$source" "$PROGRAM.new" && mv "$PROGRAM.new" "$PROGRAM"
    before=$(takeovers)
    kill -USR2 "$DAEMON"
    next() { [ "$(takeovers)" -gt "$before" ]; }
    await 20 next && upgraded=$((upgraded + 1))
    pause 700
done
wait "$calls"
kill "$ops" "$awkward" "$large"
wait "$awkward"; awkward_ok=$?
wait "$large"; large_ok=$?
wait "$ops" 2>/dev/null
{ read -r sentence; read -r median longest; } < <(python3 "$RESTART" waits "$LOG")
check "$killed kills and $upgraded of $UPGRADES upgrades" "$sentence" [ "$upgraded" -eq "$UPGRADES" ]
check "longest wait, median" "$median ms" [ "$median" -lt 500 ]
json=$(tail -1 "$WORK/calls.json")
check "50 recordings in real time" "$(figure calls <<<"$json") calls, $(figure acknowledged_bytes <<<"$json") bytes, longest write $(figure write_us.max <<<"$json") us, errors $(figure errors <<<"$json")" [ "$(figure ok <<<"$json")" = true ]
check "awkward operations" "$(cat "$WORK/awkward.json") $(tail -2 "$WORK/awkward.err" | tr '\n' ' ')" [ "$awkward_ok" -eq 0 ]
check "writes of 1 MiB" "$(cat "$WORK/large.json") $(tail -2 "$WORK/large.err" | tr '\n' ' ')" [ "$large_ok" -eq 0 ]
check "random operations" "$(cat "$WORK/ops.err") (ended by us, not by an error)" [ ! -s "$WORK/ops.err" ]
again=$("$RECORD_CALLS" "$MNT" --verify-only --ledger "$WORK/ledger" --json)
check "recordings again, by their ledger" "$(figure verified <<<"$again") verified" [ "$(figure ok <<<"$again")" = true ]
check "usage is what stat finds" "$(usage_of "$MNT")" [ "$(usage_of "$MNT")" = "$(python3 "$SCAN" mount "$MNT")" ]
check "handles that were lost" "none" [ "$(grep 'took the mount over' "$LOG" | grep -vc '(0 lost)')" -eq 0 ]
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
check "deleted recordings left in the store" "none" [ -z "$(ls "$STORE/orphans")" ]
finish
