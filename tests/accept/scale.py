"""The clients of scale.sh: many tenants, many changes a second, a large tree, a full tenant beside an empty one."""

import os
import sqlite3
import statistics
import sys
import time


def tenants(top, count):
    for n in range(int(count)):
        path = f"{top}/tenant-{n:05}/calls"
        os.makedirs(path)
        with open(path + "/first.wav", "wb") as file:
            file.write(b"RIFF")


def lag(top, database, per_second, seconds):
    """Appends to one file of each of many tenants, and looks how long the last one takes to be in the database."""
    per_second, seen = int(per_second), []
    rows = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    marker = f"{top}/tenant-00000/calls"
    ino = os.stat(marker).st_ino
    for second in range(int(seconds)):
        begun = time.monotonic()
        for n in range(1, per_second):
            with open(f"{top}/tenant-{n + second % 2 * per_second:05}/calls/first.wav", "ab") as file:
                file.write(b"more")
        with open(marker + "/first.wav", "ab") as file:
            file.write(b"more")
        size, written = os.stat(marker + "/first.wav").st_size, time.monotonic()
        while rows.execute("SELECT own_bytes FROM directory WHERE ino = ?", (ino,)).fetchone() != (size,):
            if time.monotonic() > written + 60:
                sys.exit("the database does not follow")
            time.sleep(0.005)
        seen.append(time.monotonic() - written)
        time.sleep(max(0, begun + 1 - time.monotonic()))
    print(f"{max(seen):.2f} s at most, {statistics.median(seen):.2f} s in the middle")


def tree(top, count):
    for n in range(int(count)):
        if n % 200 == 0:
            os.makedirs(f"{top}/{n // 200:04}")
        with open(f"{top}/{n // 200:04}/{n:06}.wav", "wb") as file:
            file.write(b"RIFF")


def full(tight, empty, limit):
    """Writes and removes 32 MiB in both by turns; prints the ratio of their rates."""
    block = os.urandom(1 << 16)
    room = 34 << 20
    with open(tight + "/filler", "wb") as file:
        left = int(int(limit) * 0.99) - room
        while left > 0:
            left -= file.write(block[: min(left, len(block))])
    rates = {tight: [], empty: []}
    for turn in range(21):
        for place in (tight, empty) if turn % 2 else (empty, tight):
            path = place + "/written"
            begun = time.monotonic()
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for _ in range(512):
                os.write(fd, block)
            took = time.monotonic() - begun
            os.close(fd)
            os.unlink(path)
            rates[place].append(32 / took)
    near, far = (statistics.median(rates[place]) for place in (tight, empty))
    print(f"{near / far:.3f} of the rate ({near:.0f} against {far:.0f} MiB/s)")


globals()[sys.argv[1]](*sys.argv[2:])
