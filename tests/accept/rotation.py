"""Recordings while their keys change.

make DIR COUNT: writes COUNT files of content that their names tell.
read DIR COUNT: reads files at random until it is told to end (SIGTERM), then prints how many, and ends with 1 when one was wrong.
check DIR COUNT: reads each once.
"""
import hashlib, json, os, random, signal, sys


def name(directory, n):
    return f"{directory}/{n % 20:02}/{n:06}.wav"


def content(n):
    return hashlib.shake_128(str(n).encode()).digest(2000 + n % 9 * 1500)


def wrong(directory, n):
    try:
        with open(name(directory, n), "rb") as file:
            return None if file.read() == content(n) else f"{n}: other bytes"
    except OSError as e:
        return f"{n}: {e}"


what, directory, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if what == "make":
    for n in range(20):
        os.makedirs(f"{directory}/{n:02}", exist_ok=True)
    for n in range(count):
        with open(name(directory, n), "wb") as file:
            file.write(content(n))
else:
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    done, failed = 0, []
    numbers = iter(lambda: random.randrange(count), None) if what == "read" else iter(range(count))
    for n in numbers:
        if over:
            break
        failed += filter(None, [wrong(directory, n)])
        done += 1
    print(json.dumps({"opened": done, "wrong": len(failed), "first": failed[:3]}))
    sys.exit(bool(failed))
