# A shared mapping reads what write(2) wrote, and read(2) sees what the mapping wrote.
import mmap
import os
import sys

path = sys.argv[1]
with open(path, "rb") as plain:
    content = plain.read()
fd = os.open(path, os.O_RDWR)
mapped = mmap.mmap(fd, 0)
assert mapped[:] == content, "the mapping shows the file"
mapped[5000:5006] = b"mapped"
mapped.flush()
assert os.pread(fd, 6, 5000) == b"mapped", "read after a write through the mapping"
os.pwrite(fd, b"second", 99990)
assert mapped[99990:99996] == b"second", "the mapping after a write"
private = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
private[0:4] = b"mine"
assert os.pread(fd, 4, 0) == content[:4], "a private mapping stays private"
private.close()
mapped.close()
os.close(fd)
reader = os.open(path, os.O_RDONLY)
shown = mmap.mmap(reader, 0, prot=mmap.PROT_READ)
assert shown[5000:5006] == b"mapped", "a read-only mapping"
print("ok")
