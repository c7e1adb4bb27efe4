"""Starts programs and says what each cost. A process of its own, and a small one: the kernel counts the memory of whoever
starts a program as the program's own until it has replaced itself, so the peak of a small program could not be seen from
a big one.

    runner.py UID GID      (-1 -1: as whoever started it)

Reads one JSON object a line: argv, env, cwd, timeout; answers status, wall and cpu in seconds, rss in KiB, stderr.
"""

import json
import os
import signal
import sys
import tempfile
import time


def run(order, stderr):
    os.chdir(order["cwd"])
    stderr.seek(0)
    stderr.truncate()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, stderr.fileno(), 2),
    ]
    begun = time.perf_counter()
    pid = os.posix_spawn(order["argv"][0], order["argv"], order["env"], file_actions=actions)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(order["timeout"])
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begun
    signal.alarm(0)
    stderr.seek(0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss,
        "stderr": stderr.read().decode(errors="replace")[-2000:],
    }


def main():
    uid, gid = int(sys.argv[1]), int(sys.argv[2])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    with tempfile.TemporaryFile() as stderr:
        for line in sys.stdin:
            try:
                answer = run(json.loads(line), stderr)
            except OSError as error:
                answer = {"status": 127, "wall": 0, "cpu": 0, "rss": 0, "stderr": str(error)}
            print(json.dumps(answer), flush=True)


main()
