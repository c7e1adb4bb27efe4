"""The instructions of one call, by callgrind: a figure that does not depend on what else the machine does."""

import os
import random
import re
import shutil
import struct

from machine import Failed, say
from one import Cluster
from server import SEGMENT

PAGE = 8192
NAME = "0000000100000000000000A3"
OTHER = "0000000100000000000000A2"


def fixed_segment(name, version_page, system):
    """A segment that is the same in each run but for the system identifier: pages with true headers, bodies with the runs and
    the repetitions of WAL."""
    chance = random.Random(name)
    pieces = [chance.randbytes(chance.randrange(20, 90)) for _ in range(400)]
    magic = version_page[:2]
    number = int(name[8:16], 16) * 256 + int(name[16:], 16)
    segment = bytearray()
    while len(segment) < SEGMENT:
        long = not segment
        address = number * SEGMENT + len(segment)
        page = bytearray(magic + struct.pack("<HIQII", 2 if long else 0, 1, address, 0, 0))
        if long:
            page += struct.pack("<QII", system, SEGMENT, PAGE)
        while len(page) < PAGE:
            page += chance.choice(pieces) if chance.random() < 0.6 else chance.randbytes(24) + bytes(40)
        segment += page[:PAGE]
    return bytes(segment)


def instructions(bench):
    """{tool: instructions}, of ours alone."""
    valgrind = shutil.which("valgrind")
    if not valgrind:
        raise Failed("no valgrind")
    say("instructions of one call")
    cluster = Cluster(bench, "instructions")
    with open(bench.wal.path(bench.wal.names[0]), "rb") as file:
        page = file.read(PAGE)
    with open(os.path.join(cluster.data, "global", "pg_control"), "rb") as file:
        system = struct.unpack("<Q", file.read(8))[0]
    for name in (OTHER, NAME):
        path = os.path.join(cluster.data, "pg_wal", name)
        with open(path, "wb") as file:
            file.write(fixed_segment(name, page, system))
        bench.machine.give(path)
    tool = next(tool for tool in bench.tools if tool.ours)
    place = bench.place(tool, bench.store.endpoint("http", slow=False), cluster, "instructions", OTHER)
    out = os.path.join(place.home, "callgrind")
    cluster.ready([NAME])
    bench.runner.must(
        [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", *tool.push(f"pg_wal/{NAME}")],
        place.env,
        cluster.data,
        500,
    )
    with open(out, encoding="utf-8", errors="replace") as file:
        total = re.search(r"^(?:summary|totals): (\d+)", file.read(), re.MULTILINE)
    if not total:
        raise Failed("callgrind counted nothing")
    return {tool.name: int(total[1])}
