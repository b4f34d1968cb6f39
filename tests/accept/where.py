"""Folds stacks of `perf script` and prints where the time went. Usage: where.py ROW FOLDED < stacks"""
import collections
import sys

# The first that a stack holds, from its leaf up, is what a sample of the daemon counts for.
DOING = [
    ("waiting", ("schedule", "futex", "poll_idle")),
    ("sealing", ("gcm", "aes", "aws_lc", "Aead", "aead", "sha256", "Sha256")),
    ("copying to and from the kernel", ("fuse_copy", "copy_from_iter", "copy_page", "_copy_to_iter", "copy_to_user", "copy_from_user", "memcpy")),
    ("the backing file system", ("ext4", "jbd2", "vfs_", "do_fsync", "filename_", "path_", "__x64_sys_openat", "do_unlinkat")),
    ("the FUSE device", ("fuse_dev", "fuse_read", "fuse_")),
]


# Threads that only a daemon has, by whose names its process is known.
OF_A_DAEMON = {"session", "committer", "housekeeper", "closer", "hasher", "db-writer"}
OF_THE_KERNEL = ("kworker", "jbd2", "ksoftirqd", "rcu", "perf", "migration", "kswapd")


def stacks(lines):
    """Command, process and frames, the leaf first, of each sample."""
    head, frames = None, []
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            if head is not None:
                yield (*head, frames)
            head, frames = None, []
        elif head is None:
            command, process = line.rsplit(None, 1)
            head = (command.strip(), process)
        else:
            frames.append(line.split(None, 1)[-1].split("+")[0])
    if head is not None:
        yield (*head, frames)


def doing(frames):
    for frame in frames:
        for name, marks in DOING:
            if any(mark in frame for mark in marks):
                return name
    return "its own code"


def main():
    row, folded_path = sys.argv[1:]
    sides, daemon, folded = collections.Counter(), collections.Counter(), collections.Counter()
    samples = list(stacks(sys.stdin))
    daemons = {process for command, process, _ in samples if command in OF_A_DAEMON}
    for command, process, frames in samples:
        if command == "swapper":
            side = "idle"
        elif process in daemons:
            side = "daemon"
        elif command.startswith(OF_THE_KERNEL):
            side = "kernel threads"
        else:
            side = "client"
        sides[side] += 1
        if side == "daemon":
            daemon[doing(frames)] += 1
        folded[";".join([command, *reversed(frames)])] += 1
    total = sum(sides.values()) or 1
    shares = ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in sides.most_common())
    print(f"{row}: {shares}")
    whole = sum(daemon.values()) or 1
    for name, count in daemon.most_common():
        print(f"    daemon: {name} {100 * count / whole:.0f} %")
    with open(folded_path, "w") as out:
        for stack, count in folded.most_common():
            out.write(f"{stack} {count}\n")


main()
