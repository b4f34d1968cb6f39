#!/bin/bash
# Where the processors' time goes during rows of `measure`, by perf: shares of both sides, of idle, and of what the daemon does.
# Usage: tests/accept/where.sh ROW... (names: `measure --list`); needs perf and root. Stacks stay in $OUT (default: a temporary
# directory) as ROW.folded, the form that flame graph programs read.
set -eu
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
MEASURE=${MEASURE:-$ROOT/target/release/examples/measure}
[ -x "$MEASURE" ] || { echo "missing $MEASURE: cargo build --release --examples" >&2; exit 2; }
command -v perf >/dev/null || { echo "missing perf: apt-get install linux-perf" >&2; exit 2; }
[ $# -gt 0 ] || { echo "name rows: $("$MEASURE" --list | tr '\n' ' ')" >&2; exit 2; }
OUT=${OUT:-$(mktemp -d /tmp/tallyfs-where-XXXXXX)}
mkdir -p "$OUT"
for row in "$@"; do
    perf record -q -a -g -F 1999 -o "$OUT/$row.data" -- "$MEASURE" "$row" --scale "${SCALE:-0.5}" --rounds 1 >"$OUT/$row.txt" 2>&1
    perf script -i "$OUT/$row.data" -F comm,pid,ip,sym 2>/dev/null | python3 "$HERE/where.py" "$row" "$OUT/$row.folded"
    rm -f "$OUT/$row.data"
done
echo "stacks: $OUT"
