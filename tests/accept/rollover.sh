#!/bin/bash
# A day and a month end while eight writers stand at their limit. Usage: tests/accept/rollover.sh [shifted|real]...
# shifted: the daemon lives on a clock of its own, 15 s before the end of a month (faketime). real: the machine's clock, and a time
# zone in which the next full hour is midnight; it waits for that hour.
. "$(dirname "$0")/lib.sh"
ROLLOVER="$ROOT/tests/accept/rollover.py"
LIMIT=5000000

# over NAME MIDNIGHT PERIODS: the writers, and what came of them
over() {
    local json; json=$(python3 "$ROLLOVER" write "$MNT/acme" "$2" 5)
    check "$1" "$(figure before <<<"$json") bytes of $LIMIT before, $(figure after <<<"$json") after it, $(figure refused <<<"$json") refused meanwhile, the first taken $(figure first_ms <<<"$json") ms after it" \
        [ "$(figure before <<<"$json") $(figure after <<<"$json") $(figure failed <<<"$json")" = "$LIMIT $LIMIT 0" ]
    for period in $3; do
        used=$(getfattr --absolute-names --only-values -n "user.tallyfs.quota.$period.used_bytes" "$MNT/acme")
        check "used of the new $period" "$used bytes" [ "$used" = $LIMIT ]
    done
    check "usage is what stat finds" "$(usage_of "$MNT")" [ "$(usage_of "$MNT")" = "$(python3 "$SCAN" mount "$MNT")" ]
}

shifted() {
    local library; library=$(find /usr/lib -name libfaketime.so.1 2>/dev/null | head -1)
    if [ -z "$library" ]; then
        missed "the end of a month" "libfaketime is not installed (apt-get install faketime)"
        return
    fi
    printf '[[rules]]\npath = "{tenant}/{agent}"\n[rules.limits.tenant]\nmonth.max_bytes = %s\n' $LIMIT >"$CONFIG"
    STORE=$WORK/shifted
    local now; now=$(date +%s)
    WRAP=(env "LD_PRELOAD=$library" "FAKETIME=+$(($(date -u -d '2027-01-31 23:59:45' +%s) - now))s" DONT_FAKE_MONOTONIC=1)
    mount_store
    mkdir "$MNT/acme"
    over "a month ends" $((now + 15)) "month day"
    stop_store
    WRAP=()
}

real() {
    local midnight zone; read -r midnight zone < <(python3 "$ROLLOVER" zone)
    printf '[[rules]]\npath = "{tenant}/{agent}"\n[rules.limits.tenant]\nday.max_bytes = %s\ntime_zone = "%s"\n' $LIMIT "$zone" >"$CONFIG"
    STORE=$WORK/real
    echo "     midnight in $zone is in $((midnight - $(date +%s))) s"
    mount_store
    mkdir "$MNT/acme"
    local early=$((midnight - $(date +%s) - 20))
    [ "$early" -le 0 ] || sleep "$early"
    over "a day ends in $zone" "$midnight" day
    stop_store
}

parts=("$@"); [ $# -gt 0 ] || parts=(shifted real)
for part in "${parts[@]}"; do "$part"; done
finish
