"""Replay by a real server through restore_command, against `cp` from a local directory."""

import copy as copies
import os
import re
import signal
import time

from backlog import as_command, drain, last_words
from machine import Failed, say
from server import Server, copy

LIMIT = 900
MODES = ("helper", "call", "off")


def replay(bench, endpoint):
    """{how: [seconds of each run]}"""
    times = {}
    archive = bench.machine.make("archive")
    for name in bench.wal.names:
        os.link(bench.wal.path(name), os.path.join(archive, name))
    ways = [("cp", None, ["cp", archive + "/%f", "%p"])]
    for tool in bench.tools:
        if not tool.replays:
            continue
        for mode in MODES if tool.ours else (None,):
            name = f"{tool.name} {mode}" if mode else tool.name
            variant = copies.copy(tool)
            variant.settings = {**tool.settings, **({"WALHALLA_PREFETCH": mode} if mode else {})}
            ways.append((name, variant, tool.fetch("%f", "%p")))
    ends = {}
    for run in range(bench.options.long_runs):
        for name, tool, command in ways:
            say(f"replay of {len(bench.wal.names)}, {endpoint.name}, run {run + 1}: {name}")
            try:
                took, ends[name] = once(bench, endpoint, tool, command)
                if ends[name] != ends.get("cp", ends[name]):
                    raise Failed(f"replayed to {ends[name]}, and cp to {ends['cp']}")
            except Failed as failure:
                bench.fails(f"{name}, replay, {endpoint.name}", failure)
                continue
            times.setdefault(name, []).append(took)
            say(f"  {took:.1f} s")
    bench.machine.make("archive")
    return times


def once(bench, endpoint, tool, command):
    """From the start of the server to the end of its redo, in seconds, and how far it came."""
    env = {}
    home = bench.machine.make("homes", "replay")
    server = Server(bench.machine, bench.wal.source.programs, os.path.join(bench.machine.make("replay"), "data"))
    copy(bench.machine, bench.wal.base, server.data)
    if tool is not None:
        if tool.name not in bench.archived:
            # Without the backlog's part: archived here, and not measured.
            drain(bench, tool, bench.store.endpoint("http", slow=False), 0)
        env = tool.place(endpoint, server.data, home, bench.archived[tool.name].prefix)
    text = as_command(command).replace("'", "''")
    server.configure(f"archive_mode = off\nrestore_command = '{text}'\n")
    with open(os.path.join(server.data, "recovery.signal"), "x"):
        pass
    begun = server.start(env, wait=False)
    end = None
    try:
        limit = time.monotonic() + LIMIT
        while not (end := re.search(r"^([0-9.]+) LOG:  redo done at (\S+)", server.said(), re.MULTILINE)):
            if server.child.poll() is not None or time.monotonic() > limit:
                raise Failed(f"recovery did not end: {last_words(server)}")
            time.sleep(0.1)
    finally:
        server.stop(signal.SIGQUIT)
        bench.machine.make("replay")
    return float(end[1]) - begun, end[2]
