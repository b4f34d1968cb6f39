#!/usr/bin/env python3
"""Counts a tree without the product's code: `scan.py mount DIR` by stat, `scan.py store DIR` from the sizes of sealed files.

Prints BYTES FILES DIRS. A store has to be stopped cleanly: a size that marks an unclean or damaged file ends it with 1.
"""
import os
import stat
import sys


def plain_len(path, sealed):
    """Length by FORMAT.md section 4."""
    past = sealed - 20480
    if sealed == 0:
        return 0
    if 0 < past <= 3808:
        return past
    if past >= 8192:
        pages, used = divmod(past - 4096, 4096)
        if used < 4048:
            return 3808 + 4048 * (pages - 1) + (used or 4048)
    sys.exit(f"{path}: {sealed} is not the size of a sealed file")


def main():
    kind, top = sys.argv[1:]
    seen, size, files, dirs = set(), 0, 0, 0
    waiting = [os.path.join(top, "data") if kind == "store" else top]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    dirs += 1
                    waiting.append(entry.path)
                elif status.st_ino not in seen:
                    if status.st_nlink > 1:
                        seen.add(status.st_ino)
                    files += 1
                    if stat.S_ISREG(status.st_mode):
                        size += plain_len(entry.path, status.st_size) if kind == "store" else status.st_size
    print(size, files, dirs)


main()
