#!/bin/bash
# Checks the HTTP interface against its own description with schemathesis (pip install schemathesis): thousands of requests made
# from /openapi.json, good and bad; no answer may be a server error or differ from what is described. Usage: tests/accept/api.sh [EXAMPLES=50]
# Not asked: whether everything that the schema takes is taken. JSON Schema takes 0.0 for a whole number, and no schema has the
# grammar of a limit ("5GiB").
. "$(dirname "$0")/lib.sh"
EXAMPLES=${1:-50}
command -v st >/dev/null || { echo "missing st: pip install schemathesis" >&2; exit 2; }
made=$("$TALLYFS" token schemathesis --scope read --scope quota --scope admin)
secret=$(grep -o 'tallyfs_[0-9a-f]*' <<<"$made")
{ echo '[admin]'; echo 'listen = "127.0.0.1:0"'; sed -n '/^\[\[admin/,$p' <<<"$made"; } >"$CONFIG"
mount_store
mkdir -p "$MNT/acme/sales" && echo recorded >"$MNT/acme/sales/call"
address=$(sed -n 's/.*answered at \(http:.*\)/\1/p' "$LOG" | tail -1)
# From there, because it keeps what it found in the directory that it is run in.
if (cd "$WORK" && st run "$address/openapi.json" -H "Authorization: Bearer $secret" --max-examples "$EXAMPLES" --exclude-path /metrics \
    --exclude-checks positive_data_acceptance >"$WORK/st" 2>&1); then
    echo "ok   interface: $(grep -A1 'Test cases:' "$WORK/st" | tail -1 | xargs)"
else
    tail -60 "$WORK/st"; echo "FAIL interface"; FAILED=1
fi
stop_store
exit "$FAILED"
