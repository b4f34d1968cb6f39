#!/usr/bin/env python3
"""Random operations with a model beside them, for kills at any instant.

    random_ops.py run DIR MODEL SEED [PER_S]   at most PER_S a second, until the mount goes away; MODEL (a file outside the mount) is continued if it exists
    random_ops.py verify DIR MODEL             the tree is the model; the operation under way at the end may have happened or not

The content of a file is known from its (seed, length) pieces, so the model is small.
"""
import errno
import hashlib
import os
import pickle
import random
import shutil
import sys
import time

GONE = {errno.ENOTCONN, errno.ECONNABORTED}


def noise(seed, length):
    return hashlib.shake_128(str(seed).encode()).digest(length)


class Tree:
    """Paths relative to the directory: bytes for files, None for directories."""

    def __init__(self, top):
        self.top, self.nodes, self.count = top, {"": None}, 0

    def full(self, path):
        return os.path.join(self.top, path)

    def unused(self, rnd, beginning):
        while (path := f"{beginning}{rnd.randrange(10**6)}") in self.nodes:
            pass
        return path

    def plan(self, rnd):
        """One operation: what it does to a dictionary of nodes, and the call that does it."""
        files = [path for path, node in self.nodes.items() if node is not None]
        dirs = [path for path, node in self.nodes.items() if node is None]
        new = self.unused(rnd, os.path.join(rnd.choice(dirs), "n"))
        kind = rnd.randrange(10)
        seed, length = rnd.randrange(10**9), rnd.choice([0, 44, 320, 3808, 4048, 7856, 30000, 200000])
        if kind <= 1 or not files:
            data = noise(seed, length)
            return {new: data}, [], lambda: self.write(new, 0, data, os.O_CREAT | os.O_EXCL)
        old = rnd.choice(files)
        content = self.nodes[old]
        if kind == 2 and len(dirs) < 40:
            return {new: None}, [], lambda: os.mkdir(self.full(new))
        if kind == 3:
            data = content + noise(seed, length)
            return {old: data[:2_000_000]}, [], lambda: self.write(old, len(content), data[len(content):2_000_000], 0)
        if kind in (4, 5):
            at = rnd.randrange(len(content) + 1)
            data = noise(seed, min(length, 2_000_000 - at))
            return {old: content[:at] + data + content[at + len(data):]}, [], lambda: self.write(old, at, data, 0)
        if kind == 6:
            length = rnd.randrange(len(content) + 5000)
            return {old: content[:length].ljust(length, b"\0")}, [], lambda: os.truncate(self.full(old), length)
        if kind == 7:
            target = rnd.choice([new, rnd.choice(files)])
            return {target: content}, [old] * (target != old), lambda: os.rename(self.full(old), self.full(target))
        if kind == 8 and len(files) > 20:
            return {}, [old], lambda: os.unlink(self.full(old))
        moved = [path for path in dirs if path]
        if kind == 9 and moved:
            old = rnd.choice(moved)
            below = [path for path in self.nodes if path == old or path.startswith(old + "/")]
            target = self.unused(rnd, "m")
            return {target + path[len(old):]: self.nodes[path] for path in below}, below, lambda: os.rename(self.full(old), self.full(target))
        return {}, [], lambda: os.stat(self.full(old))

    def write(self, path, at, data, flags):
        # One write is not atomic against a kill; short ones are, as far as the model goes: see matches().
        fd = os.open(self.full(path), os.O_WRONLY | flags, 0o644)
        try:
            if os.pwrite(fd, data, at) != len(data):
                raise OSError(errno.EIO, "short write")
        finally:
            os.close(fd)


def applied(nodes, made, removed):
    after = {path: node for path, node in nodes.items() if path not in removed}
    after.update(made)
    return after


def run(top, model, seed, per_s=None):
    rnd = random.Random(seed)
    known, pending = load(model, top)
    # None until the directory is what the model says: a kill before that leaves nothing to verify.
    tree, step = None, None
    try:
        os.makedirs(top, exist_ok=True)
        if known is None or pending is not None:
            # A new start: the operation under way at the last kill has an unknown result.
            shutil.rmtree(top)
            os.mkdir(top)
            known = Tree(top)
        tree = known
        while True:
            step = made, removed, call = tree.plan(rnd)
            call()
            tree.nodes = applied(tree.nodes, made, removed)
            tree.count += 1
            step = None
            if per_s:
                time.sleep(1 / per_s)
    except OSError as error:
        if error.errno not in GONE:
            sys.exit(f"random_ops: {error}")
    with open(model, "wb") as out:
        pickle.dump((tree.nodes if tree else None, step and step[:2]), out)
    with open(model + ".count", "w") as out:
        out.write(str(tree.count if tree else 0))


def load(model, top):
    try:
        with open(model, "rb") as kept:
            nodes, pending = pickle.load(kept)
    except FileNotFoundError:
        return None, None
    if nodes is None:
        return None, None
    tree = Tree(top)
    tree.nodes = nodes
    return tree, pending


def found(top):
    nodes = {"": None}
    for at, dirs, files in os.walk(top):
        for name in dirs:
            nodes[os.path.relpath(os.path.join(at, name), top)] = None
        for name in files:
            path = os.path.join(at, name)
            with open(path, "rb") as file:
                nodes[os.path.relpath(path, top)] = file.read()
    return nodes


def verify(top, model):
    tree, pending = load(model, top)
    if tree is None:
        return
    seen = found(top)
    if seen == tree.nodes:
        return
    if pending is not None:
        made, removed = pending
        after = applied(tree.nodes, made, removed)
        if seen == after:
            return
        # A write under way may have arrived in part: each byte is the old or the new one.
        if not removed and len(made) == 1:
            (path, new), old = next(iter(made.items())), tree.nodes.get(next(iter(made)), b"")
            rest = {key: node for key, node in tree.nodes.items() if key != path}
            mixed = seen.pop(path, b"")
            if seen == rest and new is not None and len(mixed) <= max(len(old), len(new)) and all(
                byte in (old[at:at + 1] or b"\0") + (new[at:at + 1] or b"\0") for at, byte in enumerate(mixed)
            ):
                return
            seen[path] = mixed
    wrong = [path for path in seen.keys() | tree.nodes.keys() if seen.get(path, 1) != tree.nodes.get(path, 1)]
    for path in wrong[:5]:
        size = lambda nodes: "absent" if path not in nodes else "directory" if nodes[path] is None else len(nodes[path])
        print(f"{path}: {size(seen)}, should be {size(tree.nodes)}; under way: {pending and [list(pending[0]), pending[1]]}")
    sys.exit(1)


if sys.argv[1] == "run":
    run(sys.argv[2], sys.argv[3], int(sys.argv[4]), *map(float, sys.argv[5:6]))
else:
    verify(sys.argv[2], sys.argv[3])
