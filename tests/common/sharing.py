# Processes that share one file: locks keep them apart, appends never overlap, mappings show the same bytes.
# Arguments: what to try, and a directory. Prints "ok".
import errno
import fcntl
import mmap
import os
import signal
import sys

path = os.path.join(sys.argv[2], "shared")
COUNT, LINES = 4, 300


def child(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def joined(pid):
    assert os.waitpid(pid, 0)[1] == 0, "a process failed"


def refused(call):
    try:
        call()
    except OSError as error:
        assert error.errno in (errno.EAGAIN, errno.EACCES), error
        return
    raise AssertionError("was not refused")


def flocks():
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(held, fcntl.LOCK_SH)

    def other():
        mine = os.open(path, os.O_RDWR)
        fcntl.flock(mine, fcntl.LOCK_SH | fcntl.LOCK_NB)
        refused(lambda: fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB))

    joined(child(other))
    fcntl.flock(held, fcntl.LOCK_EX)
    asks, told = os.pipe()

    def waiter():
        mine = os.open(path, os.O_RDWR)
        refused(lambda: fcntl.flock(mine, fcntl.LOCK_SH | fcntl.LOCK_NB))
        os.write(told, b"x")
        fcntl.flock(mine, fcntl.LOCK_EX)
        os.write(mine, b"after")

    waits = child(waiter)
    os.read(asks, 1)
    os.pwrite(held, b"before", 0)
    # The last descriptor of the opening lets the lock go. The child has a copy only of `held`, so it is undone by name.
    fcntl.flock(held, fcntl.LOCK_UN)
    joined(waits)
    assert os.pread(held, 6, 0) == b"aftere"


def ranges():
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(held, 1000)
    fcntl.lockf(held, fcntl.LOCK_EX, 100, 200)

    def other():
        mine = os.open(path, os.O_RDWR)
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 200, 0)
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 300)
        refused(lambda: fcntl.lockf(mine, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 299))
        refused(lambda: fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 200, 150))

    joined(child(other))
    joined(child(other))  # what a process held goes with it
    # Any close of the file drops the locks of the process, as POSIX has it.
    os.close(os.open(path, os.O_RDONLY))

    def after():
        fcntl.lockf(os.open(path, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)

    joined(child(after))


def closing():
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.close(os.open(path, os.O_RDWR))  # so that whatever is asked once at a close was asked
    fcntl.lockf(held, fcntl.LOCK_EX)
    asks, told = os.pipe()

    def waiter():
        signal.alarm(60)
        mine = os.open(path, os.O_RDWR)
        refused(lambda: fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB))
        os.write(told, b"x")
        fcntl.lockf(mine, fcntl.LOCK_EX)

    waits = child(waiter)
    os.read(asks, 1)
    inode = ":%d " % os.fstat(held).st_ino

    def is_waiting():
        with open("/proc/locks") as locks:
            return any("->" in line and inode in line for line in locks)

    signal.alarm(60)
    while not is_waiting():
        assert os.waitpid(waits, os.WNOHANG)[0] == 0, "it did not wait"
    # Another descriptor than the one that the lock was taken by, as POSIX has it.
    os.close(os.open(path, os.O_RDWR))
    joined(waits)
    signal.alarm(0)
    os.close(held)


def appends():
    def writer(number):
        mine = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for line in range(LINES):
            text = b"%d %d " % (number, line) + bytes([97 + number]) * (line % 700) + b"\n"
            assert os.write(mine, text) == len(text)

    pids = [child(lambda number=number: writer(number)) for number in range(COUNT)]
    for pid in pids:
        joined(pid)
    nexts = [0] * COUNT
    with open(path, "rb") as whole:
        for text in whole:
            number, line, rest = text.split(b" ")
            number, line = int(number), int(line)
            assert line == nexts[number], "lines of one writer keep their order"
            assert rest == bytes([97 + number]) * (line % 700) + b"\n", "and are whole"
            nexts[number] += 1
    assert nexts == [LINES] * COUNT


def mappings():
    own = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.write(own, b"." * 50000)
    shared = mmap.mmap(own, 0)
    private = mmap.mmap(own, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    private[0:5] = b"alone"

    def other():
        mine = os.open(path, os.O_RDWR)
        theirs = mmap.mmap(mine, 0)
        assert theirs[0:5] == b"....."
        theirs[10000:10006] = b"mapped"
        os.pwrite(mine, b"written", 30000)

    joined(child(other))
    assert shared[10000:10006] == b"mapped" and shared[30000:30007] == b"written"
    assert os.pread(own, 6, 10000) == b"mapped", "read(2) sees what another process mapped"
    assert private[0:5] == b"alone" and shared[0:5] == b"....."


{"flocks": flocks, "ranges": ranges, "closing": closing, "appends": appends, "mappings": mappings}[sys.argv[1]]()
print("ok")
