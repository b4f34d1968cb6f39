# Data written in many ways by fio and read back with a checksum in each block.
need fio "apt-get install fio"
mkdir "$MNT/fio"
# shape NAME OPTIONS...: one job file's worth of options.
shape() {
    local name=$1; shift
    if timeout 600 fio --name="$name" --directory="$MNT/fio" --verify=crc32c --verify_fatal=1 --verify_state_save=0 --group_reporting "$@" >"$WORK/out" 2>&1 &&
        ! grep -q 'verify: bad' "$WORK/out"; then
        case_is passed "$name"
    else
        case_is failed "$name" "$(grep -m1 -iE 'verify|error|invalid' "$WORK/out")"
    fi
    { echo "== $name"; cat "$WORK/out"; } >>"$LOG"
}
shape sequential --rw=write --bs=16k --size=64m --numjobs=2
shape random-pages --rw=randwrite --bs=4k --size=32m --numjobs=2
shape random-odd --rw=randwrite --bsrange=300-20000 --bs_unaligned --size=32m
shape recorder --rw=write --bs=320 --fsync=50 --size=2m --numjobs=4
shape mapped --ioengine=mmap --rw=randwrite --bs=4k --size=32m
shape asynchronous --ioengine=libaio --iodepth=8 --rw=randrw --bs=8k --size=32m
shape direct --direct=1 --rw=randwrite --bs=4k --size=16m
shape direct-asynchronous --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bs=4k --size=16m
shape io-uring --ioengine=io_uring --iodepth=8 --rw=randwrite --bs=4k --size=16m
# Written by one process, and checked by another when no page of it is in memory any more.
shape later --rw=write --bs=64k --size=64m --do_verify=0
sync -f "$MNT/fio"
echo 3 >/proc/sys/vm/drop_caches
shape later --rw=write --bs=64k --size=64m --verify_only
