# Calls on an unlinked but open file: prints "ok NAME" or "fail NAME ERROR" for each.
import mmap
import os
import sys

path = sys.argv[1]
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, b"x" * 10000)
os.unlink(path)
mapped = mmap.mmap(fd, 4096)


def must(condition):
    if not condition:
        raise AssertionError("wrong answer")


def msync():
    mapped[0] = 1
    mapped.flush()


calls = {
    "write": lambda: os.pwrite(fd, b"y" * 100, 5000),
    "append": lambda: os.pwrite(fd, b"z" * 9000, 10000),
    "fsync": lambda: os.fsync(fd),
    "fdatasync": lambda: os.fdatasync(fd),
    "fstat": lambda: must(os.fstat(fd).st_nlink == 0 and os.fstat(fd).st_size == 19000),
    "ftruncate": lambda: os.ftruncate(fd, 15000),
    "fchmod": lambda: os.fchmod(fd, 0o600),
    "fchown": lambda: os.fchown(fd, os.getuid(), os.getgid()),
    "futimens": lambda: os.utime(fd, (1, 1)),
    "fsetxattr": lambda: os.setxattr(fd, "user.a", b"1"),
    "fallocate": lambda: os.posix_fallocate(fd, 0, 30000),
    "msync": msync,
    "read": lambda: must(os.pread(fd, 4, 10000) == b"zzzz" and os.pread(fd, 4, 4998) == b"xxyy"),
}
for name, call in calls.items():
    try:
        call()
        print("ok", name)
    except Exception as error:
        print("fail", name, error)
