#!/bin/bash
# 50 recordings of one user in real time while 64 processes of another flood the mount with requests: nothing may be lost or refused.
# How many frames come late is told beside native ext4's under the same flood. Needs root. Usage: tests/accept/flood.sh [SECONDS=20]
. "$(dirname "$0")/lib.sh"
SECONDS_EACH=${1:-20} CALLS=50 FLOODER=65533 RECORDER=65534
[ "$(id -u)" = 0 ] || { echo "only root can be two users" >&2; exit 2; }
NATIVE=$WORK/native
mkdir "$NATIVE"
chmod 755 "$WORK"
# A place where another user can run it; the build directory may be closed to others.
cp "$RECORD_CALLS" "$WORK/record_calls"
mount_store

# record DIR TENANT: prints the recorder's JSON
record() {
    setpriv --reuid $RECORDER --regid $RECORDER --clear-groups "$WORK/record_calls" "$1" --tenant "$2" --calls $CALLS \
        --seconds "$SECONDS_EACH" --frame 320 --real-time --json
}

# Made before, so that no recording is lost to FreeSWITCH's own race; it belongs to the recorder.
give_tenant() {
    mkdir -p "$1/$2/$(date -u +%Y/%m/%d)" && chown -R $RECORDER:$RECORDER "$1/$2"
}

# flooded DIR TENANT: the same under a flood; the flood's figures go to $WORK/flood
flooded() {
    local said code
    mkdir "$1/flood"
    coproc FLOOD { exec python3 "$ROOT/tests/accept/flood.py" "$1/flood" $FLOODER; }
    local pid=$FLOOD_PID out=${FLOOD[0]} in=${FLOOD[1]}
    read -r said <&"$out"
    [ "$said" = ready ] || return 1
    record "$1" "$2"
    code=$?
    exec {in}>&-
    read -r said <&"$out"
    wait "$pid" || code=1
    echo "$said" >"$WORK/flood"
    return $code
}

# phase NAME COMMAND DIR TENANT: records, and checks that every byte of every recording was taken and can be read
phase() {
    local name=$1 json code; shift
    give_tenant "$2" "$3"
    : >"$WORK/flood"
    json=$("$@"); code=$?
    local bytes refused expected=$((CALLS * SECONDS_EACH * 16000 + CALLS * 44))
    bytes=$(figure acknowledged_bytes <<<"$json")
    refused=$(figure refused_bytes <<<"$json")
    LATE=$(figure late_writes <<<"$json")
    check "$name" "$LATE of $((CALLS * SECONDS_EACH * 50)) frames more than 20 ms late, $bytes of $expected bytes taken, $refused refused" \
        [ "$code $bytes $refused" = "0 $expected 0" ]
    if [ -s "$WORK/flood" ]; then
        check "$name, the flood" "$(cat "$WORK/flood")" grep -q ' failed 0$' "$WORK/flood"
    fi
}

phase "mount, quiet" record "$MNT" quiet
phase "mount, flooded" flooded "$MNT" flooded
mount_late=$LATE
check "usage is what stat finds" "$(usage_of "$MNT")" [ "$(usage_of "$MNT")" = "$(python3 "$SCAN" mount "$MNT")" ]
phase "native, quiet" record "$NATIVE" quiet
phase "native, flooded" flooded "$NATIVE" flooded
echo "     late frames under the flood: $mount_late through the mount, $LATE on $(stat -f -c %T "$NATIVE")"
stop_store
check "usage is a scan of the store" "$(usage_of "$STORE")" [ "$(usage_of "$STORE")" = "$(python3 "$SCAN" store "$STORE")" ]
finish
