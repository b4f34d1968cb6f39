#!/usr/bin/env python3
"""N processes at a limit: `processes.py write DIR N` or `create DIR N`. Each tries on until it was refused 50 times in a row.

Ends with 1 when a size is not what was acknowledged, when a file does not end on a whole sample, or on any other error.
"""
import errno
import multiprocessing
import os
import sys

REFUSED = (errno.EDQUOT, errno.ENOSPC)


def write(top, n):
    fd = os.open(f"{top}/writer-{n}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    chunk, acknowledged, refused = b"w" * (320 + 12_000 * n), 0, 0
    while refused < 50:
        try:
            count = os.write(fd, chunk)
            if count == 0:
                raise SystemExit("write answered 0")
            acknowledged, refused = acknowledged + count, 0
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            refused += 1
    size = os.fstat(fd).st_size
    if size != acknowledged or size % 4:
        raise SystemExit(f"writer {n}: size {size}, acknowledged {acknowledged}")


def create(top, n):
    refused = tried = 0
    while refused < 50:
        tried += 1
        try:
            os.close(os.open(f"{top}/creator-{n}-{tried}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            refused = 0
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            refused += 1


def begin(gate, work, top, n):
    gate.wait()
    work(top, n)


if __name__ == "__main__":
    work, top, count = {"write": write, "create": create}[sys.argv[1]], sys.argv[2], int(sys.argv[3])
    gate = multiprocessing.Barrier(count)
    processes = [multiprocessing.Process(target=begin, args=(gate, work, top, n)) for n in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    sys.exit(any(process.exitcode != 0 for process in processes))
