"""One segment at a time: what a call costs, from spawn to exit."""

import os
import shutil
import statistics

from machine import Failed, say

# A tool that takes seconds a call takes part in every so many runs, and at the first endpoint only.
SLOW_EVERY = 3


class Cluster:
    """A data directory without a server, in which programs are called as a server calls them."""

    def __init__(self, bench, name):
        self.bench, self.data = bench, bench.machine.make(name)
        for part in ("global", "pg_wal", "pg_wal/archive_status"):
            bench.machine.make(name, part)
        for file in ("global/pg_control", "PG_VERSION"):
            shutil.copy2(os.path.join(bench.wal.source.data, file), os.path.join(self.data, file))
            bench.machine.give(os.path.join(self.data, file))

    def hold(self, names):
        """These segments, and no others, in its pg_wal."""
        pg_wal = os.path.join(self.data, "pg_wal")
        for old in os.listdir(pg_wal):
            if len(old) == 24:
                os.remove(os.path.join(pg_wal, old))
        for name in names:
            os.link(self.bench.wal.path(name), os.path.join(pg_wal, name))

    def ready(self, names):
        """These wait to be archived, and no others."""
        status = os.path.join(self.data, "pg_wal", "archive_status")
        for old in os.listdir(status):
            os.remove(os.path.join(status, old))
        for name in names:
            path = os.path.join(status, f"{name}.ready")
            with open(path, "x"):
                pass
            self.bench.machine.give(path)


def in_call(argv):
    """A command as the runner starts it: by its path."""
    path = shutil.which(argv[0])
    if path is None:
        raise Failed(f"no program {argv[0]}")
    return [path, *argv[1:]]


def summary(costs):
    """What several calls cost: the median, of memory the most."""
    median = lambda key: statistics.median(cost[key] for cost in costs)
    return {
        "wall": median("wall"),
        "cpu": median("cpu"),
        "rss": max(cost["rss"] for cost in costs),
        "runs": len(costs),
        "least_wall": min(cost["wall"] for cost in costs),
        **({"stored": statistics.mean(cost["stored"] for cost in costs)} if "stored" in costs[0] else {}),
    }


def one_segment(bench):
    """{endpoint: {kind: {tool: summary}}}; what failed is in bench.failures."""
    cluster = Cluster(bench, "one")
    cluster.hold(bench.wal.names)
    kinds = {kind: names for kind, names in bench.wal.kinds.items() if names}
    return {endpoint.name: at_endpoint(bench, cluster, endpoint, kinds) for endpoint in bench.store.endpoints}


def at_endpoint(bench, cluster, endpoint, kinds):
    say(f"one segment, {endpoint.name}")
    costs = {kind: {} for kind in kinds}
    places = {}
    plain = endpoint is bench.store.endpoints[0]
    tools = [tool for tool in bench.tools if tool.one and (plain or not tool.slow)]
    # A segment of no kind.
    warm = next(name for name in bench.wal.names if not any(name in names for names in kinds.values()))
    # Where there are fewer segments of a kind than runs, they begin anew in another repository.
    around = min(len(names) for names in kinds.values())
    for run in range(bench.options.runs):
        if run % around == 0:
            for tool in tools:
                places[tool.name] = bench.place(tool, endpoint, cluster, f"one-{endpoint.port}-{run}", warm)
        for kind, names in kinds.items():
            name = names[run % around]
            for tool in tools:
                place = places[tool.name]
                if place is None or (tool.slow and run % SLOW_EVERY):
                    continue
                try:
                    cost = push(bench, tool, place, cluster, name)
                    costs[kind].setdefault(tool.name, []).append(cost)
                except Failed as failure:
                    bench.fails(f"{tool.name}, one segment, {endpoint.name}", failure)
    return {kind: {tool: summary(of_tool) for tool, of_tool in by_tool.items()} for kind, by_tool in costs.items()}


def push(bench, tool, place, cluster, name):
    """Archives one segment, as in the steady state: it alone is waiting."""
    cluster.ready([name])
    cost = bench.runner.must(in_call(tool.push(f"pg_wal/{name}")), place.env, cluster.data)
    stored = [size for key, size in bench.store.sizes(f"{place.prefix}/").items() if name in key]
    if not stored:
        raise Failed(f"said that it stored {name}, and the store has nothing of that name")
    return {**cost, "stored": sum(stored)}
