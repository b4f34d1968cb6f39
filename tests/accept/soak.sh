#!/bin/bash
# Hours of mixed load in many lives of the daemon. Usage: tests/accept/soak.sh [MINUTES=120] [SECONDS_PER_LIFE=180]
# In each life: recordings in real time, whole recordings read and compared, copies renamed, linked and deleted, random operations
# against a model, a tenant at its limit, and limits that are others than in the life before. Lives end in turn by SIGKILL and by
# SIGTERM. After each: every acknowledged byte is there and live usage is what stat finds. Memory and descriptors must not grow.
. "$(dirname "$0")/lib.sh"
MINUTES=${1:-120} LIFE_S=${2:-180}
end=$(($(date +%s) + MINUTES * 60))
SAMPLES=$WORK/samples

# Limits of a life: the tight tenant has another one each time, at times below what it holds.
configure() {
    cat >"$CONFIG" <<TOML
[[rules]]
path = "{tenant}/{campaign}/{agent}"
[rules.limits.tenant]
max_files = $((100000 + $1))
[[exceptions]]
path = "tight"
max_bytes = $(((1 + $1 % 4) * 1500000 + 1))
TOML
}

# Copies of recordings go through an archive: named anew, linked, read, deleted.
archive() {
    local at=$MNT/archive n=0 from
    mkdir -p "$at" || return
    while kill -0 "$DAEMON"; do
        n=$((n + 1))
        from=$(find "$MNT/buffered" "$MNT/frames" -type f -size +4k 2>/dev/null | shuf -n 1)
        [ -n "$from" ] || { sleep 0.5; continue; }
        cp "$from" "$at/new-$n" && mv "$at/new-$n" "$at/kept-$((n % 40))" && ln -f "$at/kept-$((n % 40))" "$at/second-$((n % 7))"
        sha256sum "$at/kept-$((n % 40))" >/dev/null
        [ $((n % 3)) -eq 0 ] && rm -f "$at/kept-$((n * 7 % 40))"
        [ $((n % 50)) -eq 0 ] && ls -lR "$MNT" >/dev/null
        sleep 0.1
    done 2>/dev/null
}

# A tenant that is at its limit most of the time; now and then it makes room.
fill() {
    local at=$MNT/tight n=0
    mkdir -p "$at" || return
    while kill -0 "$DAEMON"; do
        n=$((n + 1))
        head -c $((RANDOM * 10)) /dev/urandom >"$at/fill-$((n % 60))"
        [ $((n % 20)) -eq 0 ] && rm -f "$at"/fill-1*
        sleep 0.1
    done 2>/dev/null
}

sample() {
    while kill -0 "$DAEMON" 2>/dev/null; do
        echo "$1 $(awk '/^VmRSS/ {print $2}' "/proc/$DAEMON/status") $(ls "/proc/$DAEMON/fd" | wc -l)"
        sleep 5
    done >>"$SAMPLES" 2>/dev/null
}

lives=0 damaged=0 drifted=0 recordings=0 operations=0 slowest=0
configure 0
mount_store
while [ "$(date +%s)" -lt "$end" ]; do
    lives=$((lives + 1))
    rm -rf "$MNT/buffered" "$MNT/frames"
    mkdir -p "$MNT/buffered/$(date -u +%Y/%m/%d)" "$MNT/frames/$(date -u +%Y/%m/%d)"
    ledger=$WORK/ledger
    sample "$lives" & sampler=$!
    "$RECORD_CALLS" "$MNT" --tenant buffered --calls 30 --seconds 20 --rounds 1000 --first-round "$((lives * 1000))" --real-time --ledger "$ledger.buffered" --json >"$WORK/buffered.json" 2>&1 & b=$!
    "$RECORD_CALLS" "$MNT" --tenant frames --calls 30 --seconds 7 --frame 320 --rounds 1000 --first-round "$((lives * 1000))" --real-time --ledger "$ledger.frames" --json >"$WORK/frames.json" 2>&1 & f=$!
    python3 "$ROOT/tests/accept/random_ops.py" run "$MNT/ops" "$WORK/model" "$lives" "${OPS_PER_S:-100}" & r=$!
    archive & a=$!
    fill & w=$!
    sleep "$LIFE_S"
    kill_daemon
    wait "$b" "$f" "$r" "$a" "$w" "$sampler"
    detach
    configure "$lives"
    begun=$(now_ms)
    mount_store
    took=$(($(now_ms) - begun))
    [ "$took" -gt "$slowest" ] && slowest=$took
    for kind in buffered frames; do
        [ -f "$ledger.$kind" ] || continue
        json=$("$RECORD_CALLS" "$MNT" --verify-only --ledger "$ledger.$kind" --json)
        recordings=$((recordings + $(figure verified <<<"$json")))
        for report in "$json" "$(cat "$WORK/$kind.json")"; do
            [ "$(figure ok <<<"$report")" = true ] || { damaged=$((damaged + 1)); echo "life $lives: $report"; }
        done
        rm -f "$ledger.$kind"
    done
    python3 "$ROOT/tests/accept/random_ops.py" verify "$MNT/ops" "$WORK/model" || { damaged=$((damaged + 1)); echo "life $lives: random operations"; }
    operations=$((operations + $(cat "$WORK/model.count" 2>/dev/null || echo 0)))
    usage=$(usage_of "$MNT") found=$(python3 "$SCAN" mount "$MNT")
    [ "$usage" = "$found" ] || { drifted=$((drifted + 1)); echo "life $lives: usage $usage, found $found (bytes files dirs)"; }
    if [ $((lives % 2)) -eq 0 ]; then
        stop_store
        usage=$(usage_of "$STORE") found=$(python3 "$SCAN" store "$STORE")
        [ "$usage" = "$found" ] || { drifted=$((drifted + 1)); echo "life $lives, stopped: usage $usage, found $found"; }
        mount_store
    fi
done
check "$lives lives, $MINUTES minutes" "$damaged with damage; $recordings recordings, $operations random operations" [ $damaged -eq 0 ]
check "usage at each stop" "$drifted drifted" [ $drifted -eq 0 ]
check "start after a kill" "slowest $slowest ms" [ "$slowest" -lt 30000 ]
# The end of each life: memory in KiB and descriptors.
read -r first last fds_first fds_last <<<"$(python3 - "$SAMPLES" <<'PY'
import statistics, sys
ends = {}
for line in open(sys.argv[1]):
    if len(line.split()) == 3:
        life, kib, fds = map(int, line.split())
        ends.setdefault(life, []).append((kib, fds))
# The later half of each life, so that its warming up does not count; the first third of the lives against the last.
tails = [samples[len(samples) // 2:] for _, samples in sorted(ends.items())]
third = max(1, len(tails) // 3)
def middle(part, column):
    return int(statistics.median(sample[column] for tail in part for sample in tail))
print(*(middle(part, column) for column in (0, 1) for part in (tails[:third], tails[-third:])))
PY
)"
check "memory" "median $first KiB in the first third of the lives, $last KiB in the last" [ "$last" -le $((first * 5 / 4 + 4096)) ]
check "descriptors" "median $fds_first, then $fds_last" [ "$fds_last" -le $((fds_first * 5 / 4 + 50)) ]
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
finish
