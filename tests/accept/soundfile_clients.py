#!/usr/bin/env python3
"""Concurrent recordings by libsndfile (the library FreeSWITCH writes with), through python-soundfile.

    tests/accept/soundfile_clients.py [--clients 200] [--seconds 20] [--dir DIR]

Mounts a new store, records in CLIENTS processes at once, reads back while the files grow and bit by bit at the end and after a
remount; sox reads every file. --dir records into a directory that is already there instead (no remount).
"""
import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy
import soundfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TALLYFS = os.environ.get("TALLYFS", os.path.join(ROOT, "target/release/tallyfs"))
RATE = 8000
failed = False


def check(name, figures, good):
    global failed
    failed = failed or not good
    print(f"{'ok  ' if good else 'FAIL'} {name}: {figures}", flush=True)


def audio(number, first, count):
    """Samples of a client from FIRST on: the same whoever asks."""
    at = numpy.arange(first, first + count, dtype=numpy.uint64)
    mixed = (at * numpy.uint64(0x9E3779B97F4A7C15)) ^ numpy.uint64((number + 1) * 0x9E3779B1)
    return ((mixed >> numpy.uint64(40)) & numpy.uint64(0xFFFF)).astype(numpy.uint16).view(numpy.int16)


def path(top, number):
    return os.path.join(top, f"tenant{number % 10}", f"campaign{number % 3}", f"call-{number}.wav")


def client(top, number, seconds, gate, problems):
    """Records; every few seconds of audio it reads its own file as a listener would."""
    name = path(top, number)
    os.makedirs(os.path.dirname(name), exist_ok=True)
    rnd, written = random.Random(number), 0
    gate.wait()
    try:
        with soundfile.SoundFile(name, "w", RATE, 1, subtype="PCM_16") as out:
            while written < seconds * RATE:
                count = min(rnd.choice([160, 1600, 32768]), seconds * RATE - written)
                out.write(audio(number, written, count))
                written += count
                if rnd.random() < 0.05:
                    out.flush()
                    with open(name, "rb") as listener:
                        size = os.fstat(listener.fileno()).st_size
                        if size != 44 + 2 * written:
                            problems.put(f"{name}: size {size}, written {44 + 2 * written}")
                        first = rnd.randrange(written)
                        listener.seek(44 + 2 * first)
                        heard = listener.read(2 * min(4000, written - first))
                        if heard != audio(number, first, len(heard) // 2).tobytes():
                            problems.put(f"{name}: wrong while written, at sample {first}")
    except Exception as error:
        problems.put(f"{name}: {error}")


def together(count, work):
    processes = [multiprocessing.Process(target=work, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        if process.is_alive():
            process.kill()
    return sum(process.exitcode != 0 for process in processes)


def wrong_files(top, args):
    wrong = []
    for number in range(args.clients):
        try:
            data, rate = soundfile.read(path(top, number), dtype="int16")
            if rate != RATE or not numpy.array_equal(data, audio(number, 0, args.seconds * RATE)):
                wrong.append(path(top, number))
        except Exception as error:
            wrong.append(f"{path(top, number)}: {error}")
    return wrong


def wrong_for_sox(top, args):
    wrong = []
    for number in range(args.clients):
        sox = subprocess.run(["sox", path(top, number), "-t", "raw", "-"], capture_output=True)
        if sox.returncode or sox.stderr or sox.stdout != audio(number, 0, args.seconds * RATE).tobytes():
            wrong.append(path(top, number))
    return wrong


class Daemon:
    def __init__(self, work):
        self.store, self.top, self.log = work + "/store", work + "/mnt", open(work + "/daemon.log", "a")
        os.mkdir(self.top)
        self.start()

    def mounted(self):
        with open("/proc/self/mounts") as mounts:
            return any(line.split()[1:3] == [self.top, "fuse.tallyfs"] for line in mounts)

    def start(self):
        self.process = subprocess.Popen([TALLYFS, "mount", self.store, self.top], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while not self.mounted():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("FAIL mount: " + open(self.log.name).read()[-2000:])
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.mounted():
            subprocess.run(["fusermount3", "-uz", self.top])


def run(args, work):
    daemon = None if args.dir else Daemon(work)
    top = args.dir or daemon.top
    try:
        gate, problems = multiprocessing.Barrier(args.clients), multiprocessing.Queue()
        begun = time.monotonic()
        died = together(args.clients, lambda number: client(top, number, args.seconds, gate, problems))
        took = time.monotonic() - begun
        found = []
        while not problems.empty():
            found.append(problems.get())
        check(f"{args.clients} recordings of {args.seconds} s at once", f"{took:.1f} s, {died} died, {len(found)} problems {found[:3]}", not died and not found)
        wrong = wrong_files(top, args)
        check("bit-exact when closed", f"{len(wrong)} wrong {wrong[:3]}", not wrong)
        if daemon:
            code = daemon.stop()
            check("clean stop", f"exit code {code}", code == 0)
            daemon.start()
            wrong = wrong_files(top, args)
            check("bit-exact after a remount", f"{len(wrong)} wrong {wrong[:3]}", not wrong)
        wrong = wrong_for_sox(top, args)
        check("sox reads them without a warning", f"{len(wrong)} wrong {wrong[:3]}", not wrong)
    finally:
        if daemon:
            daemon.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--dir")
    args = parser.parse_args()
    multiprocessing.set_start_method("fork")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    work = os.path.realpath(tempfile.mkdtemp(prefix="tallyfs-accept-", dir=os.environ.get("ACCEPT_DIR", "/tmp")))
    try:
        run(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(failed)


main()
