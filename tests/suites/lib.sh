# Shared by the suites: a fresh store, mounted for each suite and always cleaned up; cases are counted, and one line is printed.
TALLYFS=${TALLYFS:-$HERE/../../target/release/tallyfs}
TALLYFS=$(realpath -m "$TALLYFS")
[ -x "$TALLYFS" ] || { echo "missing $TALLYFS: cargo build --release" >&2; exit 2; }
PATH=$PATH:$HOME/.cargo/bin
# Short: the path of a socket has at most 107 bytes, and some cases make one deep down.
WORK=$(mktemp -d "${SUITES_DIR:-/tmp}/tfsXXXX")
MNT=$WORK/m
RESULTS=${SUITES_RESULTS:-$WORK/results}
DAEMON=
FAILED=0
mkdir -p "$MNT" "$RESULTS"
chmod 755 "$WORK"

mounted() { grep -q " $MNT fuse.tallyfs " /proc/self/mounts; }
gone() { ! kill -0 "$DAEMON" 2>/dev/null; }
settled() { mounted || gone; }

# Waits until a command succeeds: await SECONDS COMMAND...
await() {
    local tries=$(($1 * 50)); shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.02
    done
}

# Ends the run with 2 unless a program is there: need PROGRAM HOW-TO-GET-IT
need() { command -v "$1" >/dev/null || { echo "$SUITE: missing $1; $2" >&2; exit 2; }; }

# A new store, mounted as root does it, and empty lists of cases.
begin() {
    SUITE=$1 LOG=$RESULTS/$1.log
    : >"$LOG"
    for list in passed failed expected skipped; do : >"$RESULTS/$SUITE.$list"; done
    mkdir "$WORK/store"
    "$TALLYFS" mount "$WORK/store" "$MNT" -o allow_other >"$RESULTS/$SUITE.daemon" 2>&1 &
    DAEMON=$!
    await 60 settled
    mounted || { echo "$SUITE: the daemon does not serve"; tail -5 "$RESULTS/$SUITE.daemon"; exit 1; }
}

# case_is KIND NAME [WORDS]: one case that passed, failed or was skipped. A failure that the list names counts as expected, and a
# case that passes although the list names it fails: the list holds no more than what is so.
case_is() {
    local kind=$1 name=$2 words=${3:-} listed=
    grep -q "^$SUITE $name | " "$HERE/expected-failures" && listed=yes
    case $kind$listed in
        failedyes) kind=expected;;
        passedyes) kind=failed words="passed, though expected-failures says that it cannot";;
    esac
    echo "$name${words:+: $words}" >>"$RESULTS/$SUITE.$kind"
}

count() { wc -l <"$RESULTS/$SUITE.$1"; }

# Unmounts, prints the line of the suite and what failed.
end() {
    umount "$MNT" || case_is failed unmount "something is still open"
    if ! await 60 gone; then
        case_is failed stop "the daemon does not end"
    elif ! wait "$DAEMON"; then
        case_is failed stop "the daemon ended with an error"
    fi
    DAEMON=
    grep -q "panicked" "$RESULTS/$SUITE.daemon" && case_is failed daemon "panicked"
    [ "$(count passed)" -gt 0 ] || case_is failed "$SUITE" "no case passed; see its log"
    echo "$SUITE: $(count passed) passed, $(count failed) failed, $(count expected) expected to fail, $(count skipped) not run"
    if [ -s "$RESULTS/$SUITE.failed" ]; then
        sed 's/^/  failed: /' "$RESULTS/$SUITE.failed"
        FAILED=1
    fi
    rm -rf "$WORK/store" "$WORK/store.key"
}

cleanup() {
    trap - EXIT INT TERM
    if [ -n "$DAEMON" ]; then
        kill -TERM "$DAEMON" 2>/dev/null
        await 20 gone || kill -KILL "$DAEMON" 2>/dev/null
    fi
    mounted && umount -l "$MNT"
    [ -z "${KEEP:-}" ] || { echo "kept $WORK"; return; }
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
