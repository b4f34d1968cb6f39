#!/usr/bin/env python3
"""The parts of damage.sh that look into files: damage to sealed files by their layout, and what has to be seen of it.

Every command prints one line per check and ends with 1 when one of them failed. The plan says which recording is damaged how.
"""
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import soundfile

PAGE, BLOCK_0, BLOCK, BODY = 4096, 3808, 4048, 20480
EIO = 5
# Way: how many; the kinds of finding of which one has to be told.
WAYS = {
    "bit of the body": (3, {"page"}),
    "page moved within": (3, {"page"}),
    "page of another file": (3, {"page"}),
    "page zeroed": (3, {"page"}),
    "old partial page": (2, {"page"}),
    "cut at a page": (3, {"size"}),
    "cut in a page": (2, {"size"}),
    "a byte longer": (2, {"size"}),
    "a page longer": (1, {"size"}),
    "bit of one head": (3, {"head-copy"}),
    "bit of both heads": (3, {"head"}),
    "old copy": (3, {"old-copy"}),
    "old full page": (3, {"content"}),
    "hole for a page": (2, {"content"}),
    "names swapped": (4, {"swapped"}),
    "copy of another": (3, {"copy"}),
    "recorder crashed": (3, {"wav-header"}),
    "rubbish": (3, {"stray"}),
    "emptied": (1, {"size"}),
}
CUT = {"cut at a page", "cut in a page"}
PAGE_LOST = {way for way, (_, kinds) in WAYS.items() if kinds == {"page"}}
MENDED = {"a byte longer", "a page longer", "bit of one head", "recorder crashed"}
REFUSED = CUT | {"a byte longer", "a page longer", "bit of both heads", "old copy", "rubbish"}
KEYLESS = {"bit of both heads", "rubbish"}
failed = False


def check(name, figures, good):
    global failed
    failed = failed or not good
    print(f"{'ok  ' if good else 'FAIL'} {name}: {figures}", flush=True)


def load(path):
    with open(path) as file:
        return json.load(file)


def save(path, value):
    with open(path, "w") as file:
        json.dump(value, file)


def whole(path):
    with open(path, "rb") as file:
        return file.read()


def recordings(top):
    found = []
    for where, _, names in os.walk(top):
        found += [os.path.relpath(os.path.join(where, name), top) for name in names]
    return sorted(found)


def body(block):
    """Where the sealed page of a block lies."""
    return BODY + PAGE * block


def plain(block):
    """Where its content lies."""
    return BLOCK_0 + BLOCK * (block - 1)


def header(data_bytes):
    number = lambda value, size: value.to_bytes(size, "little")
    fields = number(16, 4) + number(1, 2) + number(1, 2) + number(8000, 4) + number(16000, 4) + number(2, 2) + number(16, 2)
    return b"RIFF" + number(data_bytes + 36, 4) + b"WAVEfmt " + fields + b"data" + number(data_bytes, 4)


def others(mount):
    """20 recordings more: 3 by recorders that crash, 17 with holes."""
    directory = os.path.join(mount, "others")
    os.makedirs(directory, exist_ok=True)
    for number in range(3):
        if os.fork() == 0:
            with open(f"{directory}/crashed-{number}.wav", "wb", buffering=0) as file:
                file.write(header(0))
                file.write(random.Random(number).randbytes(64000))
                os.kill(os.getpid(), signal.SIGKILL)
        os.wait()
    for number in range(17):
        with open(f"{directory}/holes-{number}.raw", "wb", buffering=0) as file:
            for offset, size in ((20000, 9000), (40000 + number, 9000)):
                os.pwrite(file.fileno(), random.Random(number).randbytes(size), offset)
            file.truncate(60000)
    check("recordings", f"{len(recordings(mount))} of them", len(recordings(mount)) == 1000)


def choose(store, plan_path, old):
    """Who is damaged how, with copies of what has to come back old."""
    data, rnd = os.path.join(store, "data"), random.Random(50)
    paths = recordings(data)
    calls = [path for path in paths if not path.startswith("others")]
    by_way = {
        "recorder crashed": [path for path in paths if "crashed-" in path],
        "hole for a page": rnd.sample([path for path in paths if "holes-" in path], 2),
    }
    chosen = rnd.sample(calls, 2 * sum(count for count, _ in WAYS.values()))
    for way, (count, _) in WAYS.items():
        if way not in by_way:
            by_way[way] = [chosen.pop() for _ in range(count)]
    victims = {path: way for way, paths in by_way.items() for path in paths}
    # Whole recordings whose pages and copies are put elsewhere.
    save(plan_path, {"victims": victims, "donors": chosen[:10]})
    os.makedirs(old)
    for path, way in victims.items():
        if way.startswith("old "):
            shutil.copyfile(os.path.join(data, path), os.path.join(old, path.replace("/", "+")))
    check("chosen", f"{len(victims)} recordings, {len(by_way)} ways", len(victims) == 50 and set(by_way) == set(WAYS))


def rewrite(mount, plan_path):
    """Changes through the mount what gets old pages later."""
    for path, way in load(plan_path)["victims"].items():
        if not way.startswith("old "):
            continue
        with open(os.path.join(mount, path), "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if way == "old partial page":
                os.pwrite(file.fileno(), random.Random(path).randbytes(12000), size)
                size += 12000
            else:
                os.pwrite(file.fileno(), random.Random(path).randbytes(BLOCK), plain(3))
            os.pwrite(file.fileno(), header(size - 44), 0)


def remember(mount, plan_path):
    """What is to be read of the others, and of the victims had they not been damaged."""
    plan = load(plan_path)
    plan["sums"] = {path: hashlib.sha256(whole(os.path.join(mount, path))).hexdigest() for path in recordings(mount)}
    save(plan_path, plan)
    os.makedirs(plan_path + ".right")
    for path in plan["victims"]:
        with open(os.path.join(plan_path + ".right", path.replace("/", "+")), "wb") as copy:
            copy.write(whole(os.path.join(mount, path)))


def right(plan_path, path):
    return whole(os.path.join(plan_path + ".right", path.replace("/", "+")))


def flip(file, offset):
    byte = os.pread(file.fileno(), 1, offset)[0]
    os.pwrite(file.fileno(), bytes([byte ^ 0x10]), offset)


def harm(store, plan_path, old):
    data, plan = os.path.join(store, "data"), load(plan_path)
    swapped, donors = [], iter(plan["donors"])
    for number, (path, way) in enumerate(plan["victims"].items()):
        name, before = os.path.join(data, path), os.path.join(old, path.replace("/", "+"))
        if way == "names swapped":
            swapped.append(name)
        elif way == "copy of another":
            shutil.copyfile(os.path.join(data, next(donors)), name)
        elif way == "old copy":
            shutil.copyfile(before, name)
        elif way == "rubbish":
            if number % 2:
                os.unlink(name)
            with open(name, "wb") as file:
                file.write(os.urandom(30000))
        else:
            with open(name, "r+b", buffering=0) as file:
                harm_pages(file, way, number, before, lambda: os.path.join(data, next(donors)))
    for one, two in zip(swapped[::2], swapped[1::2]):
        os.rename(one, one + ".aside")
        os.rename(two, one)
        os.rename(one + ".aside", two)


def harm_pages(file, way, number, before, donor):
    fd, size = file.fileno(), os.fstat(file.fileno()).st_size
    put = lambda offset, page: os.pwrite(fd, page, offset)
    if way == "bit of the body":
        flip(file, body(2 + number) + 77)
    elif way == "page moved within":
        put(body(6), os.pread(fd, PAGE, body(3)))
    elif way == "page of another file":
        with open(donor(), "rb") as other:
            put(body(5), os.pread(other.fileno(), PAGE, body(5)))
    elif way == "page zeroed":
        put(body(4), bytes(PAGE))
    elif way == "old partial page":
        with open(before, "rb") as other:
            put(body(15), os.pread(other.fileno(), PAGE, body(15)))
    elif way == "old full page":
        with open(before, "rb") as other:
            put(body(3), os.pread(other.fileno(), PAGE, body(3)))
    elif way == "cut at a page":
        file.truncate(body(8))
    elif way == "cut in a page":
        file.truncate(body(9) + 1000)
    elif way == "a byte longer":
        file.truncate(size + 1)
    elif way == "a page longer":
        put(size, bytes(PAGE))
    elif way == "hole for a page":
        put(body(11), bytes(PAGE))
    elif way == "emptied":
        file.truncate(0)
    elif way in ("bit of one head", "bit of both heads"):
        heads = [slot * PAGE for slot in range(3) if any(os.pread(fd, PAGE, slot * PAGE))]
        for head in heads[number % 2:][:1] if way == "bit of one head" else heads:
            flip(file, head + 2000)
    elif way != "recorder crashed":
        sys.exit(f"no such way: {way}")


def kinds_of(*answers):
    """Kinds by path, of recordings alone."""
    kinds = {}
    for answer in answers:
        for finding in load(answer)["findings"]:
            if finding["path"] != "tallyfs.db":
                kinds.setdefault(finding["path"], set()).add(finding["kind"])
    return kinds


def found(plan_path, fsck, scrub):
    victims, kinds = load(plan_path)["victims"], kinds_of(fsck, scrub)
    missed = {path: (way, sorted(kinds.get(path, ()))) for path, way in victims.items() if not kinds.get(path, set()) & WAYS[way][1]}
    check("found by fsck and scrub", f"{len(victims) - len(missed)} of {len(victims)}, each by its kind {missed or ''}", not missed)
    wrong = {path: sorted(kinds[path]) for path in kinds if path not in victims}
    check("nobody else is blamed", f"{len(wrong)} others {wrong or ''}", not wrong)
    seen = [sum(path in kinds_of(answer) for path in victims) for answer in (fsck, scrub)]
    print(f"     fsck alone names {seen[0]}, scrub alone {seen[1]}")


def others_whole(mount, plan_path):
    plan = load(plan_path)
    good, wrong = 0, []
    for path, right_sum in plan["sums"].items():
        if path in plan["victims"]:
            continue
        try:
            is_right = hashlib.sha256(whole(os.path.join(mount, path))).hexdigest() == right_sum
        except OSError as error:
            is_right = False
            path = f"{path}: {error}"
        good += is_right
        wrong += [] if is_right else [path]
    check("the others by sha256 through the mount", f"{good} whole, {len(wrong)} not {wrong[:3]}", good == 950 and not wrong)


def victims_read(mount, plan_path):
    """A reader gets the right bytes or EIO wherever the daemon can tell; never others."""
    plan, wrong, refused, partly = load(plan_path), [], 0, 0
    for path, way in plan["victims"].items():
        expected = right(plan_path, path)
        try:
            with open(os.path.join(mount, path), "rb", buffering=0) as file:
                lost = 0
                for at in range(0, len(expected), PAGE):
                    try:
                        if way in PAGE_LOST | MENDED and os.pread(file.fileno(), PAGE, at) != expected[at:at + PAGE]:
                            wrong.append(f"{path} ({way}) has other bytes at {at}")
                    except OSError as error:
                        lost += error.errno == EIO
                partly += lost > 0
                if way in REFUSED or (way in PAGE_LOST) != (lost > 0):
                    wrong.append(f"{path} ({way}) opens, {lost} pages lost")
        except OSError as error:
            refused += 1
            if way not in REFUSED or error.errno != EIO:
                wrong.append(f"{path} ({way}): {error}")
    check("readers of damaged recordings", f"{refused} refused, {partly} with EIO for a part, {len(wrong)} wrong {wrong[:3]}", not wrong)


def salvage(program, store, plan_path, work):
    plan, wrong, played, useless, silence = load(plan_path), [], 0, 0, 0
    for number, (path, way) in enumerate(plan["victims"].items()):
        if way not in PAGE_LOST | CUT | KEYLESS:
            continue
        out = f"{work}/salvaged-{number}.wav"
        ended = subprocess.run([program, "salvage", f"{store}/data/{path}", "-o", out], capture_output=True, text=True)
        if way in KEYLESS:
            useless += 1
            if ended.returncode != 8 or os.path.exists(out) or not ended.stderr:
                wrong.append(f"{path} ({way}): {ended}")
            continue
        expected, saved = right(plan_path, path), whole(out)
        lost = [at for at in range(len(expected)) if saved[at:at + 1] != expected[at:at + 1]]
        if ended.returncode != 8 or len(saved) != len(expected) or any(saved[at] for at in lost):
            wrong.append(f"{path} ({way}): {ended.stdout}{ended.stderr}")
        # Everything but the lost blocks is there.
        blocks = {(at - BLOCK_0) // BLOCK for at in lost}
        silence += len(lost)
        if not lost or (way in PAGE_LOST and len(blocks) != 1):
            wrong.append(f"{path} ({way}): blocks {sorted(blocks)} are lost")
        sox = subprocess.run(["sox", out, "-t", "raw", "-"], capture_output=True)
        heard, rate = soundfile.read(io.BytesIO(saved), dtype="int16")
        if sox.returncode or sox.stderr or sox.stdout != saved[44:] or heard.tobytes() != saved[44:] or rate != 8000:
            wrong.append(f"{path} ({way}) does not play: {sox.stderr}")
        else:
            played += 1
    check("salvage", f"{played} play in sox and soundfile with their whole length, {silence} bytes are silence; {useless} have no key left "
          f"and are told so; {len(wrong)} wrong {wrong[:3]}", not wrong)


def mended(plan_path, repair, after):
    victims, wrong = load(plan_path)["victims"], []
    told, left = {}, kinds_of(after)
    for finding in load(repair)["findings"]:
        told.setdefault(finding["path"], {})[finding["kind"]] = finding["mended"]
    for path, way in victims.items():
        marks = told.get(path, {})
        if way in MENDED and (not marks or not all(marks.values()) or path in left):
            wrong.append(f"{path} ({way}): {marks}, then {left.get(path)}")
        if way in CUT and marks != {"size": True, "page": False}:
            wrong.append(f"{path} ({way}): {marks}")
        if way not in MENDED | CUT and any(marks.values()):
            wrong.append(f"{path} ({way}): {marks}")
    count = sum(way in MENDED for way in victims.values())
    check("what repair says", f"{count} mended, {sum(way in CUT for way in victims.values())} have their size back and lost pages named, "
          f"the rest is left; {len(wrong)} wrong {wrong[:3]}", not wrong)
    usage = [path for path in told if path == "tallyfs.db" and not all(told[path].values())]
    is_left = any(finding["path"] == "tallyfs.db" for finding in load(after)["findings"])
    check("usage after repair", "as a count finds it", not usage and not is_left)


def mended_read(mount, plan_path):
    wrong, count = [], 0
    for path, way in load(plan_path)["victims"].items():
        if way not in MENDED:
            continue
        expected = right(plan_path, path)
        if way == "recorder crashed":
            expected = header(len(expected) - 44) + expected[44:]
        count += 1
        if whole(os.path.join(mount, path)) != expected:
            wrong.append(f"{path} ({way})")
    check("mended recordings", f"{count} read as they were, {len(wrong)} do not {wrong[:3]}", not wrong)


COMMANDS = [others, choose, rewrite, remember, harm, found, salvage, others_whole, victims_read, mended, mended_read]
{command.__name__: command for command in COMMANDS}[sys.argv[1]](*sys.argv[2:])
sys.exit(failed)
