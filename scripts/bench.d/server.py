"""A real Postgres, and the WAL that it makes."""

import os
import shutil
import signal
import subprocess
import time

from machine import Failed, free_port, say, wait_for

SEGMENT = 16 << 20
SETTINGS = """
listen_addresses = ''
shared_buffers = 256MB
max_connections = 20
min_wal_size = 80MB
max_wal_size = 64GB
checkpoint_timeout = 1h
wal_keep_size = 1TB
wal_level = replica
logging_collector = off
log_line_prefix = '%n '
log_checkpoints = off
archive_mode = on
archive_command = ''
autovacuum = off
"""


class Server:
    """A data directory, and at times a server on it. Its files are the unprivileged user's."""

    def __init__(self, machine, programs, data):
        self.machine, self.programs, self.data = machine, programs, data
        self.sockets = machine.make("sockets")
        self.log = os.path.join(os.path.dirname(data), os.path.basename(data) + ".log")
        self.child = None

    def program(self, name):
        return os.path.join(self.programs, name)

    @property
    def pg_wal(self):
        return os.path.join(self.data, "pg_wal")

    def create(self):
        self.machine.run(
            [
                self.program("initdb"),
                "-D",
                self.data,
                "-A",
                "trust",
                "-U",
                "postgres",
                "--no-locale",
                "-E",
                "UTF8",
                "--no-sync",
            ]
        )
        self.configure(SETTINGS)

    def configure(self, text):
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as file:
            file.write(text)

    def start(self, environment=None, wait=True):
        """Starts it; with `wait`, until it answers. The moment just before."""
        if os.path.exists(self.log):
            os.remove(self.log)
        self.port = free_port()
        begun = time.time()
        with open(self.log, "ab") as log:
            self.child = self.machine.start(
                "postgres",
                [self.program("postgres"), "-D", self.data, "-k", self.sockets, "-p", str(self.port)],
                {**self.machine.environment(), **(environment or {})},
                self.data,
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_for("Postgres answers", 60, lambda: self.alive() and self.answers())
        return begun

    def alive(self):
        if self.child.poll() is not None:
            raise Failed(f"Postgres ended with {self.child.returncode}: {self.said()[-400:].strip()}")
        return True

    def answers(self):
        try:
            return self.sql("SELECT 1") == "1"
        except Failed:
            return False

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self, how=signal.SIGINT):
        """SIGINT: a fast shutdown; SIGQUIT: at once."""
        if self.child:
            self.machine.stop(self.child, how, 120)
            self.child = None

    def sql(self, statement):
        return self.machine.run(
            [
                self.program("psql"),
                "-X",
                "-A",
                "-t",
                "-q",
                "-h",
                self.sockets,
                "-p",
                str(self.port),
                "-U",
                "postgres",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
            ]
        ).strip()

    def insert_segment(self):
        """The number of the segment now written."""
        position = self.sql("SELECT pg_current_wal_insert_lsn() - '0/0'")
        return int(position) // SEGMENT

    def finished(self):
        """The segments that wait to be archived, in order."""
        status = os.path.join(self.pg_wal, "archive_status")
        names = (name.rpartition(".") for name in os.listdir(status))
        return sorted(name for name, _, kind in names if kind in ("ready", "done") and len(name) == 24)

    def waits(self, names):
        """Lets the server find these segments not yet archived."""
        status = os.path.join(self.pg_wal, "archive_status")
        for old in os.listdir(status):
            os.remove(os.path.join(status, old))
        for name in names:
            ready = os.path.join(status, f"{name}.ready")
            with open(ready, "x"):
                pass
            self.machine.give(ready)


class Wal:
    """What the bench archives and replays: the data directory before it was made, and the segments by kind, in order."""

    def __init__(self, source, base, kinds):
        self.source, self.base, self.kinds = source, base, kinds
        self.names = sorted(name for names in kinds.values() for name in names)

    def path(self, name):
        return os.path.join(self.source.pg_wal, name)


def copy(machine, source, target):
    """A data directory, copied as it is."""
    shutil.rmtree(target, ignore_errors=True)
    machine.run(["cp", "-a", "--reflink=auto", source, target])


def make_wal(machine, programs, segments, scale, seed):
    """A server, a copy of its data directory as its base backup, then `segments` segments of WAL in turns of three kinds:
    pgbench, COPY, and such that pg_switch_wal cut short."""
    begun = time.monotonic()
    home = machine.make("wal")
    source = Server(machine, programs, os.path.join(home, "source"))
    source.create()
    # Speeds up the making; what is made is the same.
    fast = {"PGOPTIONS": "-c synchronous_commit=off"}
    source.configure("fsync = off\n")
    source.start(fast)
    bench = [source.program("pgbench"), "-h", source.sockets, "-p", str(source.port), "-U", "postgres"]
    machine.run([*bench, "-i", "-q", "-s", str(scale), "postgres"])
    rows = os.path.join(home, "rows")
    source.sql(
        f"SELECT setseed({seed % 1000 / 1000}); "
        " CREATE TABLE bulk (id bigserial PRIMARY KEY, at timestamptz, who text, amount numeric, note text);"
        " CREATE TABLE small (at timestamptz DEFAULT now());"
        " COPY (SELECT timestamptz '2026-01-01' + i * interval '1.3 s', 'customer ' || (random() * 9999)::int, "
        " round((random() * 1000)::numeric, 2), md5(random()::text) || repeat(' and so on', (random() * 9)::int) "
        f" FROM generate_series(1, 60000) i) TO '{rows}'"
    )
    source.stop()
    base = os.path.join(home, "base")
    copy(machine, source.data, base)
    source.start(fast)
    bench[bench.index("-p") + 1] = str(source.port)
    first, kinds, turn = source.insert_segment(), {"pgbench": [], "bulk": [], "empty": []}, 0
    source.sql("SELECT pg_switch_wal()")

    def share(kind, wanted, step):
        nonlocal turn
        start = source.insert_segment()
        while source.insert_segment() < start + wanted:
            step()
            turn += 1
        if kind != "empty":
            source.sql("SELECT pg_switch_wal()")
        # The last one is cut short: it belongs to no kind, and is still archived and replayed.
        end = source.insert_segment() - (kind != "empty")
        kinds[kind] += [f"00000001{n // 256:08X}{n % 256:08X}" for n in range(start, end)]

    def pgbench():
        machine.run(
            [*bench, "-n", "-c", "4", "-t", "500", f"--random-seed={seed + turn}", "postgres"],
            {**machine.environment(), **fast},
        )

    def bulk():
        source.sql(f"COPY bulk (at, who, amount, note) FROM '{rows}'")

    def empty():
        source.sql("INSERT INTO small DEFAULT VALUES; SELECT pg_switch_wal()")

    # Eight turns, so that all three kinds are found anywhere in it.
    turns = 8 if segments >= 64 else 1
    while (made := source.insert_segment() - first) < segments:
        part = max(1, min(segments // turns, segments - made))
        few = max(2, part // 8)
        share("empty", few, empty)
        source.sql("CHECKPOINT")
        share("pgbench", max(2, (part - few) * 2 // 5), pgbench)
        source.sql("CHECKPOINT")
        share("bulk", max(2, (part - few) * 3 // 5), bulk)
        say(f"  {min(source.insert_segment() - first, segments)} of {segments} segments")
    source.stop()
    wal = Wal(source, base, kinds)
    wal.names = [name for name in source.finished() if int(name[8:16], 16) * 256 + int(name[16:], 16) >= first][
        :segments
    ]
    wal.kinds = {kind: [name for name in names if name in set(wal.names)] for kind, names in kinds.items()}
    # From here on it is a server as any.
    source.configure("fsync = on\n")
    say(f"  made in {time.monotonic() - begun:.0f} s")
    return wal
