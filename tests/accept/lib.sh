# Shared by the acceptance commands: a store that is mounted, killed, stopped and always cleaned up; one line per check.
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TALLYFS=${TALLYFS:-$ROOT/target/release/tallyfs}
RECORD_CALLS=${RECORD_CALLS:-$ROOT/target/release/examples/record_calls}
SCAN="$ROOT/tests/accept/scan.py"
for program in "$TALLYFS" "$RECORD_CALLS"; do
    [ -x "$program" ] || { echo "missing $program: cargo build --release --bins --examples" >&2; exit 2; }
done
WORK=$(mktemp -d "${ACCEPT_DIR:-/tmp}/tallyfs-accept-XXXXXX")
STORE=$WORK/store
MNT=$WORK/mnt
LOG=$WORK/daemon.log
CONFIG=$WORK/tallyfs.toml
DAEMON=
# A program in front of the daemon and of the recorders, such as faketime.
WRAP=()
FAILED=0
mkdir -p "$MNT"

mounted() { grep -q " $MNT fuse.tallyfs " /proc/self/mounts; }

# Waits until a command succeeds: await SECONDS COMMAND...
await() {
    local tries=$(($1 * 50)); shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.02
    done
}

gone() { ! kill -0 "$DAEMON" 2>/dev/null; }

# Mounts the store, with more arguments if given. Waits until the kernel shows it.
mount_store() {
    [ -f "$CONFIG" ] || : >"$CONFIG"
    "${WRAP[@]}" "$TALLYFS" mount "$STORE" "$MNT" --config "$CONFIG" "$@" >>"$LOG" 2>&1 &
    DAEMON=$!
    await "${MOUNT_WAIT:-60}" mounted_or_dead
    if ! mounted; then
        echo "FAIL mount: the daemon does not serve"; tail -20 "$LOG"; exit 1
    fi
}

mounted_or_dead() { mounted || gone; }

# Stops the daemon cleanly: it must unmount and end with 0.
stop_store() {
    kill -TERM "$DAEMON"
    wait "$DAEMON"
    local code=$?
    DAEMON=
    if [ $code -ne 0 ] || mounted; then
        echo "FAIL stop: exit code $code"; tail -20 "$LOG"; exit 1
    fi
}

# Kills the daemon without a chance to save anything. The dead mount stays, so that clients notice and write nowhere else.
kill_daemon() {
    kill -KILL "$DAEMON"
    wait "$DAEMON" 2>/dev/null
    DAEMON=
}

# Removes a dead mount, once its clients are gone.
detach() { umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT"; }

cleanup() {
    trap - EXIT INT TERM
    local jobs; jobs=$(jobs -p)
    [ -n "$jobs" ] && kill $jobs 2>/dev/null
    if [ -n "$DAEMON" ]; then
        await 20 gone || kill -KILL "$DAEMON" 2>/dev/null
    fi
    if mounted; then
        detach
    fi
    wait 2>/dev/null
    if [ -n "${KEEP:-}" ]; then echo "kept $WORK"; else rm -rf "$WORK"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# check NAME FIGURES COMMAND...: one line, and the run fails if the command does.
check() {
    local name=$1 figures=$2; shift 2
    if "$@"; then echo "ok   $name: $figures"; else echo "FAIL $name: $figures"; FAILED=1; fi
}

missed() { echo "MISSED $1: $2"; FAILED=1; }

# A figure of a JSON object: figure KEY <<<JSON
figure() { python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."): value = value[key]
print(json.dumps(value) if isinstance(value, (dict, list, bool)) else value)' "$1"; }

# Usage as the program tells it, in the form of scan.py: BYTES FILES DIRS
usage_of() { "$TALLYFS" usage "$1" --json | python3 -c 'import json, sys
total = json.load(sys.stdin)["total"]
print(total["bytes"], total["files"], total["dirs"])'; }

# Limits that count and refuse nothing; synced and sealed every second, so that kills meet that too.
config_for_kills() {
    cat >"$CONFIG" <<'TOML'
[durability]
commit_interval_s = 1
[[rules]]
path = "{tenant}/{campaign}/{agent}"
[rules.limits.tenant]
max_files = 1000000
TOML
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

finish() { exit "$FAILED"; }
