#!/bin/bash
# The Debian package in a fresh Debian root: files, links, units that verify; under a systemd of its own (in namespaces) a mounted volume by
# enable --now, reload, kills, restarts and reinstallations under 50 recordings in real time, a daemon that is given up, a stop, a line of
# fstab, a mount unit; removal and purge. Usage, as root: [KILLS=20] [UPGRADES=3] tests/accept/package.sh [DEB]. DEBIAN_ROOT names a debootstrap root with systemd to copy; else one is made.
set -u
if [ "${1:-}" = --init ]; then
    # PID 1 of the namespaces: what a container gets, then systemd.
    tree=$2
    mount --bind "$tree" "$tree" || exit 1
    mount -t proc proc "$tree/proc" && mount -t sysfs -o ro sysfs "$tree/sys" && mount -t cgroup2 cgroup2 "$tree/sys/fs/cgroup" || exit 1
    for dir in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs "$tree/$dir" || exit 1; done
    mknod -m 666 "$tree/dev/null" c 1 3; mknod -m 666 "$tree/dev/zero" c 1 5; mknod -m 666 "$tree/dev/full" c 1 7
    mknod -m 666 "$tree/dev/random" c 1 8; mknod -m 666 "$tree/dev/urandom" c 1 9; mknod -m 666 "$tree/dev/fuse" c 10 229
    # As systemd has it where it makes this decision itself: what it mounts for a unit gets to the unit.
    mount --make-rshared "$tree" || exit 1
    ln -s null "$tree/dev/console"; ln -s /proc/self/fd "$tree/dev/fd"
    exec env -i container=tallyfs-test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$tree" /lib/systemd/systemd --unit=multi-user.target
fi
# Mounts of this run are nobody else's, and go with it.
[ -n "${PACKAGE_NAMESPACE:-}" ] || PACKAGE_NAMESPACE=1 exec unshare --mount --propagation private -- "$0" "$@"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
DEB=${1:-$(ls -t "$ROOT"/target/debian/tallyfs_*.deb 2>/dev/null | head -1)}
[ -f "$DEB" ] || { echo "missing package: packaging/build-deb.sh" >&2; exit 2; }
RECORD_CALLS=${RECORD_CALLS:-$ROOT/target/release/examples/record_calls}
[ -x "$RECORD_CALLS" ] || { echo "missing $RECORD_CALLS: cargo build --release --examples" >&2; exit 2; }
KILLS=${KILLS:-20} UPGRADES=${UPGRADES:-3}
[ "$(id -u)" = 0 ] || { echo "run it as root: it makes a Debian root" >&2; exit 2; }
WORK=$(mktemp -d /var/tmp/tallyfs-package-XXXXXX)
TREE=$WORK/root
CGROUPS=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
CGROUP=$CGROUPS/tallyfs-package-$$
BOOT=; INIT=; FAILED=0

# NAME COMMAND...: one line, and the run fails if the command does.
check() {
    local name=$1; shift
    if "$@" >"$WORK/said" 2>&1; then
        echo "ok   $name"
    else
        echo "FAIL $name"; sed 's/^/     /' "$WORK/said" | tail -30; FAILED=1
    fi
}
await() {
    local tries=$(($1 * 20)); shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1)); [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}
inside() { chroot "$TREE" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
enter() { nsenter --target "$INIT" --mount --pid --uts --ipc --cgroup --root --wd -- "$@"; }
lacks() { ! "$@"; }

cleanup() {
    trap - EXIT INT TERM
    [ -n "$INIT" ] && kill -KILL "$INIT" 2>/dev/null
    [ -n "$BOOT" ] && wait "$BOOT" 2>/dev/null
    await 5 rmdir_cgroups
    umount -l "$TREE/proc" 2>/dev/null
    rm -rf --one-file-system "$WORK"
}
rmdir_cgroups() { [ ! -d "$CGROUP" ] || find "$CGROUP" -depth -type d -exec rmdir {} +; }
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ -n "${DEBIAN_ROOT:-}" ]; then
    cp -a "$DEBIAN_ROOT" "$TREE"
else
    command -v debootstrap >/dev/null || { echo "missing debootstrap: apt-get install debootstrap" >&2; exit 2; }
    mirror=$(apt-get indextargets --format '$(SITE)' | sort -u | head -1)
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    debootstrap --variant=minbase --include=systemd,systemd-sysv "$release" "$TREE" "$mirror" >"$WORK/debootstrap.log" 2>&1 ||
        { tail "$WORK/debootstrap.log" >&2; exit 2; }
fi
cp "$DEB" "$TREE/tallyfs.deb"
mount -t proc proc "$TREE/proc"

check "apt-get install" inside apt-get install -y --no-install-recommends /tallyfs.deb
for file in /usr/bin/tallyfs /lib/systemd/system/tallyfs@.service /lib/systemd/system/tallyfs-clean@.service /etc/tallyfs/calls.conf \
    /etc/tallyfs/tallyfs.toml /usr/share/bash-completion/completions/tallyfs /usr/share/zsh/vendor-completions/_tallyfs \
    /usr/share/fish/vendor_completions.d/tallyfs.fish; do
    check "$file" test -s "$TREE$file"
done
# The list, for a minimal root leaves documentation out.
for file in man1/tallyfs.1.gz man1/tallyfs-mount.1.gz man1/tallyfs-quota-get.1.gz man8/mount.tallyfs.8.gz man8/mount.fuse.tallyfs.8.gz; do
    check "man page $file" grep -qx "/usr/share/man/$file" "$TREE/var/lib/dpkg/info/tallyfs.list"
done
for name in mount.tallyfs mount.fuse.tallyfs; do
    check "$name is the helper" inside sh -c "$name --help | grep -q fstab"
done
check "group of administrators" grep -q '^tallyfs:' "$TREE/etc/group"
check "stores are closed to others" test "$(stat -c %a "$TREE/var/lib/tallyfs")" = 700
check "nothing is enabled" lacks ls "$TREE"/etc/systemd/system/multi-user.target.wants/tallyfs@*
check "the configuration checks" inside tallyfs check-config /etc/tallyfs/tallyfs.toml
check "systemd-analyze verify" eval 'inside systemd-analyze verify --man=no tallyfs@calls.service tallyfs-clean@calls.service >"$WORK/verify" 2>&1; cat "$WORK/verify"; test ! -s "$WORK/verify"'
umount "$TREE/proc"

mkdir "$CGROUP" || exit 2
(
    echo "$BASHPID" >"$CGROUP/cgroup.procs"
    exec unshare --cgroup --pid --fork --kill-child --mount --uts --ipc -- "$0" --init "$TREE"
) >"$WORK/boot.log" 2>&1 </dev/null &
BOOT=$!
await 10 pgrep -P "$BOOT"
INIT=$(pgrep -P "$BOOT")
running() { case $(enter systemctl is-system-running 2>&1) in running | degraded) ;; *) return 1 ;; esac }
await 60 running || { echo "FAIL systemd does not start"; tail -20 "$WORK/boot.log"; exit 1; }

POINT=/srv/recordings
mkdir -p "$TREE$POINT"
unit() { enter systemctl "$@"; }
main_pid() { unit show -P MainPID tallyfs@calls; }
# As any process sees it that is none of the unit's.
mounted() { enter grep -q " $POINT fuse.tallyfs " /proc/1/mounts; }
usable() { mounted && enter ls "$POINT"; }
active() { [ "$(unit is-active tallyfs@calls)" = active ] && usable; }
other_pid() { [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ] && active; }
told() { enter journalctl -o cat -u tallyfs@calls | tail -20; }
# A write that is too large for the new limit is refused.
full() { enter sh -c "! head -c 100000 /dev/zero >$POINT/acme/large"; }

check "enable --now gives a mounted volume, seen from PID 1" eval 'unit enable --now tallyfs@calls && active'
check "status says what it does" eval 'test "$(unit show -P StatusText tallyfs@calls)" = Serving'
check "a recording is written and read" enter sh -c "mkdir $POINT/acme && echo call >$POINT/acme/a.wav && grep -q call $POINT/acme/a.wav"
check "no core files, no new privileges" eval 'grep -q "Max core file size *0 *0" "/proc/$(pgrep -f "^/usr/bin/tallyfs mount" --ns "$INIT" --nslist pid | head -1)/limits"'
before=$(main_pid)
printf '[mount]\nmax_bytes = "64KiB"\n' >"$TREE/etc/tallyfs/tallyfs.toml"
check "reload: the limit counts, the process stays" eval 'unit reload tallyfs@calls && await 10 full && test "$(main_pid)" = "$before"'
check "what was recorded is there" enter grep -q call "$POINT/acme/a.wav"
enter sh -c "kill -KILL $before"
check "killed, it comes back" await 20 other_pid "$before"
before=$(main_pid)
check "installed again, what runs goes over to the new program" eval 'enter dpkg -i /tallyfs.deb && await 20 other_pid "$before"'
check "what was recorded is there" enter grep -q call "$POINT/acme/a.wav"
# 50 recordings in real time, while the daemon is killed, restarted and installed anew: none notices.
: >"$TREE/etc/tallyfs/tallyfs.toml"
DROP_IN=$TREE/etc/systemd/system/tallyfs@.service.d
mkdir -p "$DROP_IN"
printf '[Unit]\nStartLimitIntervalSec=0\n' >"$DROP_IN/often.conf"
unit daemon-reload
unit reload tallyfs@calls
cp "$RECORD_CALLS" "$TREE/usr/bin/record_calls"
took_over() { enter journalctl -o cat -u tallyfs@calls | grep -c 'took the mount over'; }
more_than() { [ "$(took_over)" -gt "$1" ]; }
seconds=$(((KILLS + UPGRADES * 4) * 8 / 10 + 10))
enter sh -c "mkdir -p $POINT/frames/\$(date -u +%Y/%m/%d)"
enter record_calls "$POINT" --tenant frames --calls 50 --seconds 10 --frame 320 --real-time --rounds $((seconds / 10 + 1)) --json >"$WORK/calls.json" 2>&1 & calls=$!
sleep 1
lost=0
for _ in $(seq "$KILLS"); do
    pid=$(main_pid) before=$(took_over)
    [ "$pid" != 0 ] && enter sh -c "kill -KILL $pid"
    await 20 more_than "$before" || lost=$((lost + 1))
    sleep "0.$((RANDOM % 6))"
done
check "$KILLS kills, and the next daemon takes over" [ $lost -eq 0 ]
for _ in $(seq "$UPGRADES"); do
    before=$(took_over)
    check "restart" eval 'unit restart tallyfs@calls && more_than "$before"'
    before=$(took_over)
    check "upgrade" eval 'enter dpkg -i /tallyfs.deb && await 20 more_than "$before"'
done
wait "$calls"
check "recordings go on: $(tail -1 "$WORK/calls.json" | cut -c1-330)" grep -q '"ok":true' "$WORK/calls.json"
check "usage is what stat finds" eval 'test "$(enter tallyfs usage $POINT --json | grep -A1 "\"total\"" | grep -o "[0-9]*")" = "$(enter find $POINT -type f -printf "%s\n" | paste -sd+ | bc)"'
rm "$DROP_IN/often.conf"
unit daemon-reload
check "stop takes the mount away" eval 'unit stop tallyfs@calls && lacks mounted'
check "and says nothing went wrong" eval 'test "$(unit show -P Result tallyfs@calls)" = success'

cp "$ROOT/packaging/systemd/credential.conf" "$DROP_IN/"
mv "$TREE/var/lib/tallyfs/calls.key" "$TREE/etc/tallyfs/calls.key"
check "the key as a credential, and the mount is seen from PID 1" eval 'unit daemon-reload && unit start tallyfs@calls && active && enter grep -q call $POINT/acme/a.wav || { told; false; }'
unit stop tallyfs@calls
mv "$TREE/etc/tallyfs/calls.key" "$TREE/var/lib/tallyfs/calls.key"
rm "$DROP_IN/credential.conf"
unit daemon-reload

# Given up: the next start is refused at once, and a dead mount is left by the kill before.
unit start tallyfs@calls
printf '[Service]\nRestart=no\n' >"$DROP_IN/once.conf"
unit daemon-reload
enter sh -c "kill -KILL $(main_pid)"
check "given up, the mount is cleaned away" await 20 eval 'lacks mounted && enter ls $POINT'
check "by the clean-up unit" eval 'test "$(unit show -P Result tallyfs-clean@calls)" = success && enter journalctl -o cat -u tallyfs-clean@calls | grep -q "dead mount was taken away"'
rm -r "$DROP_IN"
unit daemon-reload
unit disable tallyfs@calls 2>/dev/null
unit reset-failed

stopped() { enter tallyfs status /var/lib/tallyfs/calls --json | grep -q '"stopped"'; }
echo "/var/lib/tallyfs/calls $POINT tallyfs config=/etc/tallyfs/tallyfs.toml,nofail,_netdev 0 0" >"$TREE/etc/fstab"
check "mount by a line of fstab" eval 'enter mount $POINT && usable && enter grep -q call $POINT/acme/a.wav'
check "umount" eval 'enter umount $POINT && await 20 stopped'
check "mount -t fuse.tallyfs" eval 'enter mount -t fuse.tallyfs -o nosuid,noauto /var/lib/tallyfs/calls $POINT && usable && enter umount $POINT && await 20 stopped'
check "mount(8) shows the daemon's error and ends with 32" enter sh -c "mount -t tallyfs -o config=/nowhere /var/lib/tallyfs/calls $POINT 2>&1 | grep -q /nowhere; mount -t tallyfs -o config=/nowhere /var/lib/tallyfs/calls $POINT; test \$? = 32"
: >"$TREE/etc/fstab"
cp "$ROOT/packaging/systemd/srv-recordings.mount" "$TREE/etc/systemd/system/"
check "a mount unit" eval 'unit daemon-reload && unit start srv-recordings.mount && usable && enter grep -q call $POINT/acme/a.wav'
check "is stopped" eval 'unit stop srv-recordings.mount && lacks mounted && await 20 stopped'

unit start tallyfs@calls
check "removal stops what runs" eval 'enter env DEBIAN_FRONTEND=noninteractive apt-get remove -y tallyfs && lacks mounted'
check "a removal keeps the configuration" test -f "$TREE/etc/tallyfs/calls.conf"
check "purge" enter env DEBIAN_FRONTEND=noninteractive dpkg --purge tallyfs
check "a purge takes the configuration" lacks test -e "$TREE/etc/tallyfs"
check "and no recording and no key" test -f "$TREE/var/lib/tallyfs/calls/data/acme/a.wav" -a -s "$TREE/var/lib/tallyfs/calls.key"
exit $FAILED
