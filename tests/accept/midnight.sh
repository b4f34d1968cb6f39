#!/bin/bash
# No recording is lost when many calls start at once in a known tenant's new day. Usage: tests/accept/midnight.sh [quiet|loaded|new|midnight]...
# CALLS (200) recorders per burst, RUNS (20) bursts quiet and as many under load, each burst the first touch of a tenant's day.
. "$(dirname "$0")/lib.sh"
CALLS=${CALLS:-200} RUNS=${RUNS:-20}
cat >"$CONFIG" <<'TOML'
[[rules]]
path = "{tenant}/%Y/%m/%d"
date_directories = true
TOML

# A burst into DIR; adds to CALLED, LOST (recordings that did not start) and BROKEN (anything else that was wrong).
burst() {
    local json; json=$("${WRAP[@]}" "$RECORD_CALLS" "$1" --calls "$CALLS" --seconds "$2" --burst --json --tenant "$3" "${@:4}")
    local lost; lost=$(figure lost_starts <<<"$json")
    CALLED=$((CALLED + $(figure calls <<<"$json"))) LOST=$((LOST + lost))
    [ "$(figure ok <<<"$json")" = true ] || [ "$lost" -gt 0 ] || BROKEN=$((BROKEN + 1))
    START_MAX=$(python3 -c 'import sys; print(max(map(int, sys.argv[1:])))' "$START_MAX" "$(figure start_us.max <<<"$json")")
}

reset() { CALLED=0 LOST=0 BROKEN=0 START_MAX=0; }
nothing_lost() { [ "$LOST" -eq 0 ] && [ "$BROKEN" -eq 0 ] && [ "$CALLED" -eq "$1" ]; }
figures() { echo "$LOST of $CALLED lost, $BROKEN runs with other damage, slowest start $((START_MAX / 1000)) ms"; }

quiet() {
    reset
    for n in $(seq "$RUNS"); do burst "$MNT" 4 "quiet$n"; done
    check "$RUNS bursts of $CALLS into a known tenant's new day" "$(figures)" nothing_lost $((RUNS * CALLS))
}

# Four busy processes for every processor and a writer on the same disk.
load() {
    LOAD=
    for _ in $(seq $(($(nproc) * 4))); do while :; do :; done & LOAD="$LOAD $!"; done
    while :; do dd if=/dev/zero of="$WORK/load" bs=1M count=64 conv=fsync status=none; done & LOAD="$LOAD $!"
}

loaded() {
    load
    reset
    for n in $(seq "$RUNS"); do burst "$MNT" 1 "loaded$n"; done
    kill $LOAD; wait $LOAD 2>/dev/null
    check "$RUNS bursts of $CALLS, machine loaded" "$(figures)" nothing_lost $((RUNS * CALLS))
}

# A brand-new tenant is FreeSWITCH's own race, on any file system: this one must not be worse than the native one.
new() {
    mkdir "$WORK/native"
    load
    reset
    for n in $(seq "$RUNS"); do burst "$WORK/native" 1 "new$n"; done
    local native_lost=$LOST native_figures; native_figures=$(figures)
    reset
    for n in $(seq "$RUNS"); do burst "$MNT" 1 "new$n"; done
    kill $LOAD; wait $LOAD 2>/dev/null
    echo "     native directory: $native_figures"
    check "$RUNS bursts of $CALLS into brand-new tenants, machine loaded" "$(figures)" not_worse "$native_lost" $((RUNS * CALLS))
}

# Losses are rare events: what lies within three standard deviations of the native figure is not worse.
not_worse() { [ "$BROKEN" -eq 0 ] && [ "$CALLED" -eq "$2" ] && python3 -c 'import sys
ours, native = map(int, sys.argv[1:])
sys.exit(ours > native + 3 * native ** 0.5)' "$LOST" "$1"; }

# Daemon and recorders live on a clock that is shifted to shortly before midnight, and calls go on into the new day.
midnight() {
    local library; library=$(find /usr/lib -name libfaketime.so.1 2>/dev/null | head -1)
    if [ -z "$library" ]; then
        missed "bursts over a midnight" "libfaketime is not installed (apt-get install faketime)"
        return
    fi
    local shift_s=$((86400 - $(date +%s) % 86400 - 10)) rounds=0 days
    WRAP=(env "LD_PRELOAD=$library" "FAKETIME=+${shift_s}s" DONT_FAKE_MONOTONIC=1)
    STORE=$WORK/midnight-store
    mount_store
    mkdir "$MNT/acme"
    reset
    until [ "$rounds" -ge 12 ] && [ $((($(date +%s) + shift_s) % 86400)) -lt 43200 ]; do
        rounds=$((rounds + 1))
        burst "$MNT" 2 acme --first-round "$rounds"
    done
    WRAP=()
    days=$(find "$MNT/acme" -name '*.wav' -printf '%h\n' | sort | uniq -c | awk '{printf "%s%s in %s", sep, $1, substr($2, length($2) - 9); sep = ", "}')
    check "$rounds bursts of $CALLS over a midnight" "$(figures); $days" nothing_lost $((rounds * CALLS))
    check "recordings on both sides of it" "$days" [ "$(find "$MNT/acme" -name '*.wav' -printf '%h\n' | sort -u | wc -l)" -eq 2 ]
    stop_store
}

parts=("$@"); [ $# -gt 0 ] || parts=(quiet loaded new midnight)
mount_store
for n in $(seq "$RUNS"); do mkdir "$MNT/quiet$n" "$MNT/loaded$n"; done
mkdir "$MNT/known"
# Each question is a process of its own: a caller that was told ENOENT is left alone on its way down.
known() { mkdir "$MNT/known/$(date -u +%Y/%m/%d)" 2>&1 | grep -q 'File exists'; }
await 60 known || { echo "FAIL today's directory never appeared for a known tenant"; exit 1; }
for part in "${parts[@]}"; do [ "$part" = midnight ] || "$part"; done
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
[[ " ${parts[*]} " != *" midnight "* ]] || midnight
finish
