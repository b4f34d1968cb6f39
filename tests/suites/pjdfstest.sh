# POSIX calls and their errors, 398 cases (pjdfstest 0.2.2). As root: it changes users, and remounts read-only and back.
need pjdfstest "cargo install pjdfstest@0.2.2"
id tests >/dev/null 2>&1 || { echo "pjdfstest: missing user tests; groupadd tests && useradd -M -g tests tests" >&2; exit 2; }
mkdir -p "$MNT/pjd" "$WORK/other" "$WORK/bin"
chmod 755 "$MNT/pjd" "$WORK/other"
# Another file system, for renames and links across.
mount -t tmpfs none "$WORK/other"
# The helper mount.fuse cannot remount, so mount(8) is told to leave it out.
printf '#!/bin/sh\nexec %s -i "$@"\n' "$(command -v mount)" >"$WORK/bin/mount"
chmod 755 "$WORK/bin/mount"
cat >"$WORK/pjdfstest.toml" <<'TOML'
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.01
allow_remount = true

[dummy_auth]
entries = [["nobody", "nogroup"], ["tests", "tests"]]
TOML
# pjd [NAME]: all cases, or those with a name in them, in one process.
pjd() { (umask 022; PATH=$WORK/bin:$PATH timeout 900 pjdfstest -c "$WORK/pjdfstest.toml" -p "$MNT/pjd" -s "$WORK/other" -v "$@"); }
pjd >"$LOG" 2>&1
mount -i -o remount,rw "$MNT" 2>/dev/null
# Some cases leave files open for writing until the program ends, and Linux remounts no file system read-only then, ext4 neither.
# Which cases come after them is a matter of how the program was linked. So these are asked again, each in a process of its own.
while read -r name _; do
    pjd "$name" >"$WORK/alone" 2>&1
    mount -i -o remount,rw "$MNT" 2>/dev/null
    cat "$WORK/alone" >>"$LOG.alone"
    verdict=$(awk -v name="$name" '$1 == name { print $2 }' "$WORK/alone")
    sed -i -E "s/^($name +)FAILED$/\1${verdict:-FAILED}/" "$LOG"
done < <(grep -E '^[a-z_:0-9]*erofs_[a-z_]+ +FAILED$' "$LOG")
umount "$WORK/other"
grep -q '^Summary' "$LOG" || case_is failed whole "did not come to its end"
while read -r name verdict; do
    case $verdict in
        ok) case_is passed "$name";;
        FAILED) case_is failed "$name";;
        skipped) case_is skipped "$name" "$(grep -A2 "^$name .*skipped" "$LOG" | sed -n '3s/^\s*//p')";;
    esac
done < <(grep -E '^[a-z_:0-9]+ +(ok|FAILED|skipped)$' "$LOG")
