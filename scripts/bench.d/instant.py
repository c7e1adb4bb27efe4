"""Calls of ours that need no transfer: answered from a marker, or from the spool."""

import os

from machine import Failed, say
from one import Cluster, in_call, summary

# What one call works ahead, or fetches ahead, at the default concurrency.
AT_ONCE = 8


def noted(env, name):
    """Whether the spool holds something by this segment's name."""
    return any(name in file for _, _, files in os.walk(env["WALHALLA_SPOOL"]) for file in files)


def instant_calls(bench):
    """{what: summary}; a key is missing where this build does not do that."""
    tool = next(tool for tool in bench.tools if tool.ours)
    endpoint = bench.store.endpoint("http", slow=False)
    costs = {"ahead": [], "marker": [], "rename": [], "copy": []}
    for run in range(max(1, bench.options.runs // 3)):
        names = bench.wal.names[run * AT_ONCE :][: AT_ONCE + 1]
        if len(names) < 2:
            break
        place = markers(bench, tool, endpoint, names, run, costs)
        for how, parent in (("rename", None), ("copy", other_file_system(bench))):
            if how == "rename" or parent:
                spool(bench, tool, place, names, how, parent, costs)
    for what, where in (
        ("marker", "from a marker"),
        ("rename", "from the spool by rename"),
        ("copy", "from the spool by copy"),
    ):
        if not costs[what]:
            bench.fails(f"a call answered {where}", "there was none")
    return {what: summary(calls) for what, calls in costs.items() if calls}


def other_file_system(bench):
    """A directory on another file system than the data directory's, if there is one."""
    for parent in ("/dev/shm", "/run/shm"):
        if os.path.isdir(parent) and os.stat(parent).st_dev != os.stat(bench.machine.directory).st_dev:
            return parent
    return None


def markers(bench, tool, endpoint, names, run, costs):
    """A small backlog: the first call works ahead, those that follow find their markers."""
    say(f"a call answered from a marker, run {run + 1}")
    cluster = Cluster(bench, f"marker-{run}")
    cluster.hold(names)
    place = bench.place(tool, endpoint, cluster, f"marker-{run}", None)
    waiting = list(names)
    while waiting:
        cluster.ready(waiting)
        name = waiting.pop(0)
        had = noted(place.env, name)
        cost = bench.runner.must(in_call(tool.push(f"pg_wal/{name}")), place.env, cluster.data)
        if had:
            costs["marker"].append(cost)
        elif waiting and noted(place.env, waiting[0]):
            costs["ahead"].append(cost)
    return place


def spool(bench, tool, place, names, how, parent, costs):
    """A replay without a server: the calls that find their segment in the spool."""
    say(f"a call answered from the spool by {how}")
    cluster = Cluster(bench, "replay-calls")
    with open(os.path.join(cluster.data, "recovery.signal"), "x"):
        pass
    # Files fetched ahead belong to one startup process, which is a child of the postmaster: here the runner, and this process.
    with open(os.path.join(cluster.data, "postmaster.pid"), "x", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n{cluster.data}\n1700000000\n5432\n/tmp\n*\n  1 2\nstarting\n")
    for name in ("recovery.signal", "postmaster.pid"):
        bench.machine.give(os.path.join(cluster.data, name))
    spool = bench.machine.make_on(parent) if parent else bench.machine.make("spool")
    env = {**place.env, "WALHALLA_SPOOL": spool, "WALHALLA_PREFETCH": "call"}
    asked = os.path.join(cluster.data, "pg_wal", "RECOVERYXLOG")
    for name in names:
        had = noted(env, name)
        cost = bench.runner.must(in_call(tool.fetch(name, "pg_wal/RECOVERYXLOG")), env, cluster.data)
        if had:
            costs[how].append(cost)
        with open(asked, "rb") as got, open(bench.wal.path(name), "rb") as wanted:
            if got.read() != wanted.read():
                raise Failed(f"{name} is not what was archived")
        os.rename(asked, os.path.join(cluster.data, "pg_wal", name))
