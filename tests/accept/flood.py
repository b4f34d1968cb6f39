#!/usr/bin/env python3
"""64 processes of one user that ask a file system for as much as they can: `flood.py DIR UID`.

Stat, create and unlink, append and fsync, and listings of a directory with 10,000 entries, 16 processes each. Prints `ready` when all
have begun; ends at the end of its input, with one line: requests of each kind, and how many were refused or failed.
"""
import multiprocessing
import os
import sys

PROCESSES_OF_EACH = 16
ENTRIES = 10_000


def stat(top, n, turn):
    os.stat(f"{top}/many/{(n * 977 + turn) % ENTRIES}")


def create(top, n, turn):
    path = f"{top}/new-{n}-{turn}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    os.unlink(path)


def fsync(top, n, turn):
    fd = os.open(f"{top}/synced-{n}", os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if turn % 256 == 0 else os.O_APPEND), 0o644)
    os.write(fd, b"s" * 4096)
    os.fsync(fd)
    os.close(fd)


def listing(top, n, turn):
    found = len(os.listdir(f"{top}/many"))
    if found != ENTRIES:
        raise OSError(0, f"{found} entries of {ENTRIES}")


KINDS = (stat, create, fsync, listing)


def flood(kind, top, user, n, gate, stop, counts, failures):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    gate.wait()
    turn = 0
    while not stop.is_set():
        try:
            kind(top, n, turn)
        except OSError as error:
            if failures[n] == 0:
                print(f"{kind.__name__} {n}: {error}", file=sys.stderr)
            failures[n] += 1
        turn += 1
        counts[n] = turn


def main():
    top, user = sys.argv[1], int(sys.argv[2])
    os.makedirs(f"{top}/many")
    for entry in range(ENTRIES):
        os.close(os.open(f"{top}/many/{entry}", os.O_WRONLY | os.O_CREAT, 0o644))
    os.chown(top, user, user)
    total = PROCESSES_OF_EACH * len(KINDS)
    gate, stop = multiprocessing.Barrier(total + 1), multiprocessing.Event()
    counts, failures = multiprocessing.Array("Q", total, lock=False), multiprocessing.Array("Q", total, lock=False)
    processes = [
        multiprocessing.Process(target=flood, args=(KINDS[n % len(KINDS)], top, user, n, gate, stop, counts, failures))
        for n in range(total)
    ]
    for process in processes:
        process.start()
    gate.wait()
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for process in processes:
        process.join()
    of_each = " ".join(f"{kind.__name__} {sum(counts[i::len(KINDS)])}" for i, kind in enumerate(KINDS))
    died = sum(process.exitcode != 0 for process in processes)
    print(of_each, "failed", sum(failures) + died)


main()
