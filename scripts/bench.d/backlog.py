"""A backlog, drained by a real server through archive_command."""

import os
import re
import shlex
import time

from machine import Failed, say, wait_for

LIMIT = 900
WAL_NAME = re.compile(r"0000000[1-9][0-9A-F]{16}")


def as_command(argv):
    """The text of archive_command or restore_command; %p and %f stay as they are."""
    return " ".join(word if "%" in word else shlex.quote(word) for word in argv)


def backlog(bench, endpoint):
    """{tool: [seconds of each run]}; where it went to is kept for the replay."""
    times = {}
    tools = [tool for tool in bench.tools if tool.drains]
    for run in range(bench.options.long_runs):
        for tool in tools:
            try:
                took = drain(bench, tool, endpoint, run)
            except Failed as failure:
                bench.fails(f"{tool.name}, backlog, {endpoint.name}", failure)
                continue
            times.setdefault(tool.name, []).append(took)
            say(f"  {tool.name}: {len(bench.wal.names) / took:.1f} segments/s")
    return times


def drain(bench, tool, endpoint, run):
    """From the moment that archive_command is set to the last segment archived, in seconds."""
    server, wal = bench.wal.source, bench.wal
    say(f"backlog of {len(wal.names)}, {endpoint.name}, run {run + 1}: {tool.name}")
    place = bench.place(tool, endpoint, server, f"backlog-{run}-{endpoint.port}", None)
    server.waits(wal.names)
    server.start(place.env)
    try:
        # One statement a call: ALTER SYSTEM runs in no transaction block.
        refused = "SELECT failed_count FROM pg_stat_archiver"
        before = server.sql(refused)
        command = as_command(tool.push("%p")).replace("'", "''")
        server.sql(f"ALTER SYSTEM SET archive_command = '{command}'")
        status = os.path.join(server.pg_wal, "archive_status")
        begun = time.perf_counter()
        server.sql("SELECT pg_reload_conf()")
        while any(name.endswith(".ready") for name in os.listdir(status)):
            if time.perf_counter() - begun > LIMIT:
                raise Failed(f"not drained within {LIMIT} s: {last_words(server)}")
            if server.child.poll() is not None:
                raise Failed(f"Postgres ended: {last_words(server)}")
            time.sleep(0.01)
        took = time.perf_counter() - begun
        if server.sql(refused) != before:
            raise Failed(f"calls failed: {last_words(server)}")
    finally:
        # A server that is stopped closes its segment and archives it too: that is not part of the backlog.
        server.sql("ALTER SYSTEM RESET archive_command")
        server.sql("SELECT pg_reload_conf()")
        wait_for("no archive_command", 30, lambda: server.sql("SHOW archive_command") in ("", "(disabled)"))
        server.stop()
    stored = bench.store.sizes(f"{place.prefix}/")
    more = [key for key in stored if (name := WAL_NAME.search(key)) and name[0] not in wal.names]
    if more:
        raise Failed(f"the store has more than was waiting: {more[0]}")
    missing = [name for name in wal.names if not any(name in key for key in stored)]
    if missing:
        raise Failed(f"the store lacks {len(missing)} of {len(wal.names)} segments, first {missing[0]}")
    bench.archived[tool.name] = place
    return took


def last_words(server):
    """The end of its log; of our programs' lines the last, which says most."""
    lines = server.said().strip().splitlines()
    telling = [line for line in lines if line.startswith("walhalla") or " FATAL: " in line or " ERROR: " in line]
    return " | ".join(telling[-3:] or lines[-3:])[-600:]
