#!/bin/bash
# What is scraped is well-formed, and what watches it fits: promtool on the scrape, the rules and their unit tests, every name that
# rules and dashboard use is in the scrape, and a Prometheus of its own scrapes over TCP with a token as packaging/prometheus/scrape.yml
# says, loads the rules, and answers every query of the dashboard. Usage: tests/accept/metrics.sh
. "$(dirname "$0")/lib.sh"
PROMETHEUS="$ROOT/packaging/prometheus"
DASHBOARD="$ROOT/packaging/grafana/tallyfs.json"
NAMES="$ROOT/tests/accept/metrics.py"
for program in promtool prometheus curl; do
    command -v "$program" >/dev/null || { echo "missing $program: apt-get install --no-install-recommends prometheus curl" >&2; exit 2; }
done
made=$("$TALLYFS" token prometheus --scope read)
{
    echo '[admin]'; echo 'listen = "127.0.0.1:0"'; sed -n '/^\[\[admin/,$p' <<<"$made"
    printf '[mount]\nmax_bytes = "1TiB"\n[[rules]]\npath = "{tenant}/{campaign}"\n[rules.limits.tenant]\nmax_bytes = 100000\nmax_files = 1000\nmax_dirs = 10\n'
    printf 'day.max_files = 5000\nmonth.max_bytes = "1GiB"\n'
} >"$CONFIG"
mount_store

# Recordings that come, grow, are read, moved and go; every tenth is refused.
work() {
    mkdir -p "$MNT/acme/sales"
    for number in $(seq 20); do
        printf '%4000s' "$number" >"$MNT/acme/sales/$1-$number"
        cat "$MNT/acme/sales/$1-$number" >/dev/null
        sync "$MNT/acme/sales/$1-$number"
        truncate -s 100 "$MNT/acme/sales/$1-$number"
        mv "$MNT/acme/sales/$1-$number" "$MNT/acme/sales/moved"
        rm "$MNT/acme/sales/moved"
    done
    ls -l "$MNT/acme" >/dev/null
    head -c 200000 /dev/zero 2>/dev/null >"$MNT/acme/sales/large" 2>/dev/null
    rm "$MNT/acme/sales/large"
    head -c 90000 /dev/zero >"$MNT/acme/sales/kept-$1"
    rm -f "$MNT"/acme/sales/kept-before-*
}
work before-1 2>/dev/null

scrape() { curl -fsS --unix-socket "$STORE/admin.sock" "$@" http://tallyfs/metrics; }
scrape >"$WORK/scrape" || { echo "FAIL scrape"; exit 1; }
scrape -H 'Accept: application/openmetrics-text' >"$WORK/open"
clean() { "$@" >"$WORK/told" 2>&1 || { cat "$WORK/told"; return 1; }; }
lint() { clean promtool check metrics <"$WORK/scrape"; }
check "promtool check metrics" "$(grep -c '^# TYPE' "$WORK/scrape") metrics, $(grep -vc '^#' "$WORK/scrape") figures" lint
check "OpenMetrics" "it ends with $(tail -1 "$WORK/open")" [ "$(tail -1 "$WORK/open")" = "# EOF" ]
check "promtool check rules" "$(grep -c 'alert:' "$PROMETHEUS/tallyfs.rules.yml") alerts" clean promtool check rules "$PROMETHEUS/tallyfs.rules.yml"
check "promtool check config" "scrape.yml" clean promtool check config --syntax-only "$PROMETHEUS/scrape.yml"
check "promtool test rules" "$(grep -c 'alertname:' "$PROMETHEUS"/tests/*.yml) cases" clean promtool test rules "$PROMETHEUS"/tests/*.yml
check "names" "$(python3 "$NAMES" names "$WORK/scrape" "$PROMETHEUS/tallyfs.rules.yml" "$DASHBOARD")" \
    clean python3 "$NAMES" names "$WORK/scrape" "$PROMETHEUS/tallyfs.rules.yml" "$DASHBOARD"

# As scrape.yml says, only sooner, and at the port that the daemon got.
mkdir "$WORK/prometheus"
grep -o 'tallyfs_[0-9a-f]*' <<<"$made" | head -1 >"$WORK/prometheus/token"
address=$(sed -n 's|.*answered at http://\(.*\)|\1|p' "$LOG" | tail -1)
sed -e 's/15s/1s/' -e "s|/etc/prometheus/tallyfs.token|$WORK/prometheus/token|" -e "s|127.0.0.1:8183|$address|" "$PROMETHEUS/scrape.yml" \
    >"$WORK/prometheus/prometheus.yml"
cp "$PROMETHEUS/tallyfs.rules.yml" "$WORK/prometheus/"
check "promtool check config, with its files" "$address" clean promtool check config "$WORK/prometheus/prometheus.yml"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
prometheus --config.file="$WORK/prometheus/prometheus.yml" --storage.tsdb.path="$WORK/prometheus/data" \
    --web.listen-address="127.0.0.1:$port" --log.level=error >"$WORK/prometheus/log" 2>&1 &
prometheus=$!
is_up() { python3 "$NAMES" up "http://127.0.0.1:$port" >/dev/null 2>&1; }
if await 60 is_up; then
    work after
    # Rates need two scrapes with work between them.
    sleep 3
    check "scraped by Prometheus" "$(python3 "$NAMES" up "http://127.0.0.1:$port")" true
    check "queries of the dashboard" "$(python3 "$NAMES" queries "http://127.0.0.1:$port" "$DASHBOARD")" \
        clean python3 "$NAMES" queries "http://127.0.0.1:$port" "$DASHBOARD"
else
    echo "FAIL scraped by Prometheus"; cat "$WORK/prometheus/log"; FAILED=1
fi
kill "$prometheus"; wait "$prometheus" 2>/dev/null
stop_store
finish
