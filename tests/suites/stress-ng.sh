# The file stressors of stress-ng with --verify, one after the other, two processes each, STRESS_SECONDS long.
need stress-ng "apt-get install stress-ng"
STRESSORS=${STRESSORS:-access aiol chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fault fcntl \
    fiemap file-ioctl filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify io iomix ioprio io-uring lease link \
    locka lockf lockofd mknod mmap mmapfork msync open readahead rename revio seal seek sendfile symlink sync-file touch utime xattr}
SECONDS_EACH=${STRESS_SECONDS:-3}
mkdir "$MNT/stress"
known=$(stress-ng --help 2>&1)
for stressor in $STRESSORS; do
    grep -qE -- "--$stressor N" <<<"$known" || { case_is skipped "$stressor" "this stress-ng has no such stressor"; continue; }
    more=()
    case $stressor in
        hdd) more=(--hdd-bytes 64m --hdd-opts wr-rnd,rd-rnd,fsync);;
        iomix) more=(--iomix-bytes 64m);;
        mmap) more=(--mmap-file);;
    esac
    said=$(cd "$MNT/stress" && timeout -k 10 $((SECONDS_EACH + 90)) stress-ng --"$stressor" 2 "${more[@]}" --verify \
        --timeout "${SECONDS_EACH}s" --temp-path "$MNT/stress" --metrics-brief 2>&1)
    code=$?
    { echo "== $stressor: $code"; echo "$said" | tail -25; } >>"$LOG"
    why=$(grep -m1 -E 'fail:|error:|skipping|not supported|not implemented' <<<"$said" | sed 's/^stress-ng: [a-z]*: *//')
    case $code in
        0)  # A stressor that could do nothing ends with 0 as well, and has no line of figures.
            if grep -q 'skipping' <<<"$said" && ! grep -qE "metrc:.* $stressor +[1-9]| $stressor +[1-9][0-9]* " <<<"$said"; then
                case_is skipped "$stressor" "$why"
            else
                case_is passed "$stressor"
            fi;;
        3 | 4) case_is skipped "$stressor" "$why";;
        *) case_is failed "$stressor" "code $code $why";;
    esac
done
