"""Measures one segment, a backlog and a replay, ours beside the peers that are on PATH."""

import argparse
import json
import os
import platform
import signal
import sys
import time

import backlog
import instant
import instructions
import one
import replay
import targets
from machine import Failed, Machine, Runner, say
from server import make_wal
from store import Store
from tools import found

PARTS = ("one", "marker", "backlog", "replay", "instructions")


class Place:
    """A repository of one tool's: its variables, where its files lie, its prefix."""

    def __init__(self, env, home, prefix):
        self.env, self.home, self.prefix = env, home, prefix


class Bench:
    """One run: the machine, the store, the WAL, who is compared, and what failed."""

    def __init__(self, machine, options):
        self.machine, self.options = machine, options
        self.failures, self.archived = {}, {}
        self.tools = found(machine, options.binaries, peers=not options.alone)
        say("compared: " + ", ".join(tool.name for tool in self.tools))
        self.runner = Runner(machine)
        say(f"starting the store ({options.store})")
        self.store = Store(machine, options.store, options.store_program, options.round_trip / 1000)
        say(f"making {options.segments} segments of WAL (seed {options.seed})")
        self.wal = make_wal(machine, options.postgres, options.segments, options.scale, options.seed)

    def fails(self, what, why):
        """Notes what could not be measured; the rest goes on."""
        if what not in self.failures:
            say(f"  failed: {what}: {why}")
        self.failures.setdefault(what, str(why))

    def place(self, tool, endpoint, cluster, name, warm):
        """A new repository of the tool's, set up, with the segment `warm` in it; `None`, and noted, where that failed."""
        prefix = f"{name}/{tool.name.replace(' ', '-')}"
        home = self.machine.make("homes", prefix.replace("/", "-"))
        env = tool.place(endpoint, cluster.data, home, prefix)
        place = Place(env, home, prefix)
        try:
            tool.prepare(self.runner, env, cluster.data)
            if warm:
                cluster.ready([warm])
                self.runner.must(one.in_call(tool.push(f"pg_wal/{warm}")), env, cluster.data)
        except Failed as failure:
            if tool.ours or not warm:
                raise
            self.fails(f"{tool.name}, {endpoint.name}", failure)
            return None
        return place

    def measure(self):
        parts, result = self.options.only or PARTS, {}
        slow = self.store.endpoint("http", slow=True)
        lines = [slow, self.store.endpoint("http", slow=False)] if self.options.both else [slow]
        for part, take in (
            ("one", lambda: {"one": one.one_segment(self)}),
            ("marker", lambda: {"instant": instant.instant_calls(self)}),
            ("backlog", lambda: {"backlog": {line.name: backlog.backlog(self, line) for line in lines}}),
            ("replay", lambda: {"replay": {line.name: replay.replay(self, line) for line in lines}}),
            ("instructions", lambda: {"instructions": instructions.instructions(self)}),
        ):
            if part in parts:
                begun = time.monotonic()
                try:
                    result |= take()
                except Failed as failure:
                    self.fails(part, failure)
                say(f"{part}: {time.monotonic() - begun:.0f} s")
        return result


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone; repeatable")
    parser.add_argument("--runs", type=int, help="calls of each kind of segment (default 9)")
    parser.add_argument("--long-runs", type=int, default=1, help="backlogs and replays of each (default 1)")
    parser.add_argument("--segments", type=int, help="length of the backlog and of the replay (default 256)")
    parser.add_argument("--both", action="store_true", help="backlog and replay also without the round trip")
    parser.add_argument("--round-trip", type=float, default=20, metavar="MS", help="of the slow line (default 20)")
    parser.add_argument("--quick", action="store_true", help="one run, eight segments: whether the bench works")
    parser.add_argument("--alone", action="store_true", help="without peers, whatever is on PATH")
    parser.add_argument("--store", choices=("seaweedfs", "minio"), default="seaweedfs")
    parser.add_argument("--binaries", help="the directory of our programs (default: built for release)")
    parser.add_argument("--seed", type=int, default=20, help="of the WAL")
    parser.add_argument("--scale", type=int, help="of pgbench (default 20)")
    parser.add_argument("--directory", help="where to work, with 20 GB free (default: the temporary directory)")
    parser.add_argument("--json", help="where the figures go (default: target/bench.json)")
    # Said by scripts/bench.
    for name in ("--store-program", "--postgres"):
        parser.add_argument(name, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    quick = options.quick
    options.runs = options.runs or (1 if quick else 9)
    options.segments = options.segments or (8 if quick else 256)
    options.scale = options.scale or (4 if quick else 20)
    if options.segments < 8 or options.runs < 1 or options.long_runs < 1:
        parser.error("at least 8 segments and one run")
    if quick and not options.only:
        options.only = [part for part in PARTS if part != "instructions"]
    return options


def cores():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{os.cpu_count()} cores {models[0] if models else platform.machine()}"


def report(bench, result):
    print(f"{result['machine']}; Postgres {result['postgres']}; store {result['store']}; seed {result['seed']}\n")
    print(targets.markdown(targets.HEAD, [row.cells() for row in targets.rows(result)]))
    print("\n" + targets.details(result))
    if bench.failures:
        print("\nNot measured:\n" + "\n".join(f"* {what}: {why}" for what, why in bench.failures.items()))


def main():
    options = arguments()
    # So that everything is ended and removed, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    begun = time.monotonic()
    machine = Machine(options.directory)
    try:
        bench = Bench(machine, options)
        result = {
            "machine": cores(),
            "store": options.store,
            "segments": options.segments,
            "seed": options.seed,
            "postgres": machine.run([os.path.join(options.postgres, "postgres"), "--version"]).split()[2],
            "zstd": [tool.name for tool in bench.tools if tool.zstd],
        }
        result |= bench.measure()
    except Failed as failure:
        sys.exit(f"error: {failure}")
    finally:
        # Not twice: a second word must not stop the tidying.
        for impatient in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(impatient, signal.SIG_IGN)
        machine.close()
    result["rows"] = [row.cells() for row in targets.rows(result)]
    result["failures"] = bench.failures
    report(bench, result)
    os.makedirs(os.path.dirname(os.path.abspath(options.json)), exist_ok=True)
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    say(f"figures in {options.json}; took {time.monotonic() - begun:.0f} s")
    # Whatever a peer does: ours must have worked.
    sys.exit(any(what == part or what.startswith("walhalla") for what in bench.failures for part in PARTS))


main()
