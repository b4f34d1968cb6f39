# NAMES names (100,000) in one directory, listed by a second process while a third makes and removes others.
need python3 "apt-get install python3"
mkdir "$MNT/names"
if timeout 1200 python3 - "$MNT/names" "${NAMES:-100000}" >"$LOG" 2>&1 <<'PYTHON'
import os, sys
top, count = sys.argv[1], int(sys.argv[2])
for n in range(count):
    os.mknod(f"{top}/staying-{n}", 0o600)
changer = os.fork()
if changer == 0:
    for n in range(count // 10):
        os.mknod(f"{top}/passing-{n}", 0o600)
        os.unlink(f"{top}/passing-{n}")
    os._exit(0)
rounds = 0
while rounds < 3 or os.waitpid(changer, os.WNOHANG) == (0, 0):
    names = [entry.name for entry in os.scandir(top)]
    assert len(names) == len(set(names)), "a name was listed twice"
    staying = sum(name.startswith("staying-") for name in names)
    assert staying == count, f"{staying} of {count} names were listed"
    rounds += 1
for n in range(count):
    os.unlink(f"{top}/staying-{n}")
os.rmdir(top)
print(rounds, "listings")
PYTHON
then case_is passed listing; else case_is failed listing "$(tail -1 "$LOG")"; fi
