#!/usr/bin/env python3
"""Operations that must not notice that the daemon under them is killed and started anew.

    restart.py large DIR     1 MiB at a time, into four files, each write read again: until SIGTERM; prints a line of JSON
    restart.py awkward DIR   what cannot simply be done twice, or hangs on a process: until SIGTERM; prints a line of JSON
    restart.py waits LOG     figures of "callers waited for up to N ms" in a daemon's log
"""
import concurrent.futures
import ctypes
import errno
import json
import os
import re
import signal
import statistics
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2


class Awkward:
    def __init__(self, top):
        self.top, self.count, self.longest, self.ends = top, 0, 0.0, False
        self.numbers = 0
        os.makedirs(top, exist_ok=True)

    def path(self, name):
        return os.path.join(self.top, name)

    def timed(self, call, *arguments, **named):
        begun = time.monotonic()
        result = call(*arguments, **named)
        self.longest = max(self.longest, time.monotonic() - begun)
        self.count += 1
        return result

    def make(self, name, data):
        fd = self.timed(os.open, self.path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        assert self.timed(os.pwrite, fd, data, 0) == len(data)
        return fd

    def content(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def exchange(self, one, other):
        def call():
            done = LIBC.renameat2(AT_FDCWD, self.path(one).encode(), AT_FDCWD, self.path(other).encode(), RENAME_EXCHANGE)
            if done != 0:
                raise OSError(ctypes.get_errno(), f"exchange {one} {other}")
        self.timed(call)

    def without_a_name(self, n):
        fd = self.make(f"gone{n}", b"before")
        self.timed(os.unlink, self.path(f"gone{n}"))
        for at in range(6, 60, 6):
            assert self.timed(os.pwrite, fd, b"behind", at) == 6
            time.sleep(0.002)
        assert self.timed(os.pread, fd, 100, 0) == b"before" + b"behind" * 9
        assert os.fstat(fd).st_nlink == 0, os.fstat(fd)
        self.timed(os.close, fd)

    def replaced(self, n):
        old, new = self.make(f"old{n}", b"old content"), self.make(f"new{n}", b"new")
        self.timed(os.rename, self.path(f"new{n}"), self.path(f"old{n}"))
        assert self.timed(os.pread, old, 100, 0) == b"old content"
        assert self.content(f"old{n}") == b"new"
        os.close(old), os.close(new)
        self.timed(os.unlink, self.path(f"old{n}"))

    def exchanged(self, n):
        os.close(self.make(f"a{n}", b"A")), os.close(self.make(f"b{n}", b"B"))
        for turn in range(5):
            self.exchange(f"a{n}", f"b{n}")
            expected = (b"B", b"A") if turn % 2 == 0 else (b"A", b"B")
            assert (self.content(f"a{n}"), self.content(f"b{n}")) == expected, (turn, expected)
        self.timed(os.unlink, self.path(f"a{n}")), self.timed(os.unlink, self.path(f"b{n}"))

    def names(self, n):
        directory = self.path(f"dir{n}")
        self.timed(os.mkdir, directory)
        self.timed(os.symlink, "nowhere", os.path.join(directory, "symlink"))
        os.close(self.make(f"dir{n}/file", b"x"))
        self.timed(os.link, os.path.join(directory, "file"), os.path.join(directory, "link"))
        self.timed(os.setxattr, os.path.join(directory, "file"), "user.a", b"1", os.XATTR_CREATE)
        self.timed(os.removexattr, os.path.join(directory, "file"), "user.a")
        moved = self.path(f"moved{n}")
        self.timed(os.rename, directory, moved)
        for name in ("symlink", "file", "link"):
            self.timed(os.unlink, os.path.join(moved, name))
        self.timed(os.rmdir, moved)

    def moved_while_open(self, n):
        self.timed(os.mkdir, self.path(f"from{n}")), self.timed(os.mkdir, self.path(f"to{n}"))
        fd = self.make(f"from{n}/call", b"1")
        self.timed(os.rename, self.path(f"from{n}/call"), self.path(f"to{n}/call"))
        for at in range(1, 8):
            self.timed(os.pwrite, fd, b"1", at)
            time.sleep(0.002)
        os.close(fd)
        assert self.content(f"to{n}/call") == b"1" * 8
        self.timed(os.unlink, self.path(f"to{n}/call"))
        self.timed(os.rmdir, self.path(f"from{n}")), self.timed(os.rmdir, self.path(f"to{n}"))

    def run(self):
        appended = self.timed(os.open, self.path("appended"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        held = self.timed(os.open, self.top, os.O_RDONLY | os.O_DIRECTORY)
        kept = self.make("kept", b"k" * 10_000)
        n = 0
        while not self.ends:
            n += 1
            for step in (self.without_a_name, self.replaced, self.exchanged, self.names, self.moved_while_open):
                assert self.timed(os.write, appended, b"%08d" % self.numbers) == 8
                self.numbers += 1
                step(n)
            assert self.timed(os.pread, kept, 20_000, 0) == b"k" * 10_000
            names = self.timed(os.listdir, held)
            assert sorted(names) == ["appended", "kept"], f"a directory that is held open holds {names}, then {os.listdir(held)}"
        os.close(appended), os.close(held), os.close(kept)
        assert self.content("appended") == b"".join(b"%08d" % number for number in range(self.numbers)), "appended"
        left = sorted(os.listdir(self.top))
        assert left == ["appended", "kept"], left


class Large:
    """Requests as large as they get: a kill amid one finds the kernel copying."""

    BYTES, PLACES = 1 << 20, 8

    def __init__(self, top):
        self.top, self.count, self.longest, self.ends = top, 0, 0.0, False
        os.makedirs(top, exist_ok=True)

    def one(self, number):
        fd = os.open(os.path.join(self.top, f"large{number}"), os.O_CREAT | os.O_RDWR, 0o600)
        written = {}
        while not self.ends:
            self.count += 1
            place = self.count % self.PLACES
            data = self.count.to_bytes(8, "little") * (self.BYTES // 8)
            begun = time.monotonic()
            assert os.pwrite(fd, data, place * self.BYTES) == self.BYTES
            self.longest = max(self.longest, time.monotonic() - begun)
            written[place] = data
            time.sleep(0.02)
        for place, data in written.items():
            assert os.pread(fd, self.BYTES, place * self.BYTES) == data, place
        os.close(fd)
        os.unlink(os.path.join(self.top, f"large{number}"))

    def run(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for end in [pool.submit(self.one, number) for number in range(4)]:
                end.result()


def until_told(operations):
    signal.signal(signal.SIGTERM, lambda *_: setattr(operations, "ends", True))
    failed = None
    try:
        operations.run()
    except (OSError, AssertionError) as error:
        failed = f"{type(error).__name__} {error} {errno.errorcode.get(getattr(error, 'errno', 0), '')}"
        import traceback
        traceback.print_exc()
    print(json.dumps({"operations": operations.count, "longest_ms": round(operations.longest * 1000), "failed": failed}))
    sys.exit(failed is not None)


def waits(log):
    with open(log) as lines:
        found = [int(wait) for wait in re.findall(r"waited for up to (\d+) ms", lines.read())]
    found = found or [0]
    print(f"{len(found)} take-overs, waits of median {statistics.median(found):.0f}, longest {max(found)} ms")
    print(round(statistics.median(found)), max(found))


if sys.argv[1] == "awkward":
    until_told(Awkward(sys.argv[2]))
elif sys.argv[1] == "large":
    until_told(Large(sys.argv[2]))
else:
    waits(sys.argv[2])
