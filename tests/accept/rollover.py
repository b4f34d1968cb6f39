"""A day or month ends under load.

zone: prints the next full hour (seconds since 1970) and a time zone in which it is midnight.
write DIR MIDNIGHT SECONDS: eight processes write until so long after midnight; prints what was acknowledged on both sides of it, and
how long after it the first write was taken. MIDNIGHT is in real time, whatever the daemon's clock says.
"""
import datetime, json, multiprocessing, os, sys, time, zoneinfo

WRITERS, CHUNK = 8, 4000


def zone():
    midnight = (int(time.time()) // 3600 + 1) * 3600
    for name in sorted(zoneinfo.available_timezones()):
        if "/" in name and not name.startswith("Etc/"):
            there = datetime.datetime.fromtimestamp(midnight, zoneinfo.ZoneInfo(name))
            if (there.hour, there.minute) == (0, 0):
                print(midnight, name)
                return
    sys.exit("in no time zone")


def writer(path, midnight, end, out):
    before = after = refused = 0
    first = None
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while (begun := time.time()) < end:
        try:
            count = os.write(fd, b"x" * CHUNK)
        except OSError as e:
            assert e.errno == 122, e
            refused += 1
            time.sleep(0.005)
            continue
        # Which day it was charged to is the daemon's to say; what lies on the edge is counted by its beginning.
        if begun < midnight:
            before += count
        else:
            after += count
            first = first or begun
    os.close(fd)
    out.put((before, after, refused, first))


def write(directory, midnight, seconds):
    out = multiprocessing.Queue()
    each = [
        multiprocessing.Process(target=writer, args=(f"{directory}/{n}.wav", midnight, midnight + seconds, out))
        for n in range(WRITERS)
    ]
    for process in each:
        process.start()
    told = [out.get() for _ in each]
    for process in each:
        process.join()
    first = min(t[3] for t in told if t[3]) if any(t[3] for t in told) else None
    print(json.dumps({
        "before": sum(t[0] for t in told), "after": sum(t[1] for t in told), "refused": sum(t[2] for t in told),
        "first_ms": None if first is None else round((first - midnight) * 1000), "failed": sum(p.exitcode != 0 for p in each),
    }))


if sys.argv[1] == "zone":
    zone()
else:
    write(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
