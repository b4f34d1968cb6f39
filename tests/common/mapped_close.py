# Changes a shared mapping, closes the descriptor it was made by, and keeps the mapping until its input ends.
import mmap
import os
import sys

fd = os.open(sys.argv[1], os.O_RDWR)
mapped = mmap.mmap(fd, 0)
mapped[5000:5006] = b"mapped"
os.close(fd)
print("closed", flush=True)
sys.stdin.read()
