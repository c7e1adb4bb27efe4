"""The table of targets: ours against the fastest peer, or against `cp`."""

MIB = 1 << 20
OURS = "walhalla"


class Row:
    """One line: what, ours, the other, their ratio, what is wanted."""

    def __init__(self, what, ours, other="", ratio=None, target="", met=None):
        self.what, self.ours, self.other, self.ratio, self.target, self.met = what, ours, other, ratio, target, met

    def cells(self):
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {True: "met", False: "missed", None: ""}[self.met]
        return [self.what, self.ours, self.other, ratio, self.target, verdict]


HEAD = ["what", "ours", "fastest peer, or `cp`", "ratio", "target", ""]


def ms(seconds):
    return f"{seconds * 1000:.1f} ms"


def mib(size):
    return f"{size / MIB:.1f} MiB" if size >= MIB / 10 else f"{size / 1024:.1f} KiB"


def rows(result):
    return [
        *one_rows(result.get("one", {}), result["zstd"]),
        *instant_rows(result.get("instant", {})),
        *backlog_rows(result.get("backlog", {}), result["segments"]),
        *replay_rows(result.get("replay", {})),
        *instruction_rows(result.get("instructions", {})),
    ]


def one_rows(one, zstd):
    for endpoint, kinds in one.items():
        for kind, tools in kinds.items():
            ours = tools.get(OURS)
            if not ours:
                continue
            # The delayed line has no target of its own.
            aimed = endpoint.endswith(" 0 ms")
            peers = {name: tools[name] for name in zstd if name in tools and name != OURS}
            where = f"one segment, {kind}, {endpoint}"
            name = min(peers, key=lambda peer: peers[peer]["wall"], default=None)
            for key, what, shown, most in (
                ("wall", "wall", ms, 0.7),
                ("cpu", "CPU", ms, 0.8),
                ("stored", "stored", mib, 1.0),
            ):
                if key != "wall" and not aimed:
                    continue
                if name is None:
                    yield Row(f"{where}: {what}", shown(ours[key]))
                    continue
                ratio = ours[key] / max(peers[name][key], 1e-6)
                target = f"≤ {most:g}" if aimed else ""
                yield Row(
                    f"{where}: {what}",
                    shown(ours[key]),
                    f"{shown(peers[name][key])} {name}",
                    ratio,
                    target,
                    ratio <= most if aimed else None,
                )
    rss = [tools[OURS]["rss"] for kinds in one.values() for tools in kinds.values() if OURS in tools]
    if rss:
        yield Row(
            "one segment: resident memory, the most", mib(max(rss) * 1024), target="≤ 24 MiB", met=max(rss) <= 24 * 1024
        )


def instant_rows(instant):
    for key, what, most in (
        ("marker", "a call answered from a marker", 0.008),
        ("rename", "from the spool, by rename", 0.003),
        ("copy", "from the spool, by copy", None),
    ):
        if key in instant:
            wall = instant[key]["wall"]
            yield Row(
                what, ms(wall), target=f"≤ {most * 1000:g} ms" if most else "", met=wall <= most if most else None
            )
    if "ahead" in instant:
        rss = instant["ahead"]["rss"]
        yield Row(
            "resident memory of a call that works ahead", mib(rss * 1024), target="≤ 88 MiB", met=rss <= 88 * 1024
        )


def backlog_rows(backlog, segments):
    for endpoint, times in backlog.items():
        speed = {name: segments / middle(of_tool) for name, of_tool in times.items()}
        if OURS not in speed:
            continue
        ours = speed.pop(OURS)
        name = max(speed, key=speed.get, default=None)
        what = f"backlog of {segments}, {endpoint}"
        if name is None:
            yield Row(what, f"{ours:.1f}/s")
        else:
            ratio, aimed = ours / speed[name], not endpoint.endswith(" 0 ms")
            yield Row(
                what,
                f"{ours:.1f}/s",
                f"{speed[name]:.1f}/s {name}",
                ratio,
                "≥ 2" if aimed else "",
                ratio >= 2 if aimed else None,
            )


def replay_rows(replay):
    for endpoint, times in replay.items():
        took = {name: middle(of_tool) for name, of_tool in times.items()}
        cp = took.get("cp")
        if cp is None:
            continue
        peers = [name for name in took if name != "cp" and not name.startswith(OURS)]
        for name, seconds in took.items():
            if name == "cp":
                continue
            least = {f"{OURS} helper": 0.95, f"{OURS} call": 0.85}.get(name)
            aimed = least if not endpoint.endswith(" 0 ms") else None
            if name.startswith(OURS):
                yield Row(
                    f"replay, {endpoint}, {name}: speed of `cp`",
                    f"{seconds:.1f} s",
                    f"{cp:.1f} s cp",
                    cp / seconds,
                    f"≥ {aimed}" if aimed else "",
                    cp / seconds >= aimed if aimed else None,
                )
        if peers:
            name = min(peers, key=took.get)
            yield Row(
                f"replay, {endpoint}, the fastest peer: speed of `cp`",
                "",
                f"{took[name]:.1f} s {name}",
                cp / took[name],
            )


def instruction_rows(instructions):
    for count in instructions.values():
        yield Row("instructions of one call, fixed segment", f"{count / 1e6:.1f} million", target="recorded")


def middle(values):
    return sorted(values)[len(values) // 2]


def markdown(head, lines):
    """A table of Markdown, its columns aligned for the eye as well."""
    lines = [head, *lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def details(result):
    """Everybody's figures, part by part."""
    parts = []
    for endpoint, kinds in result.get("one", {}).items():
        lines = [
            [
                kind,
                tool,
                ms(of["wall"]),
                ms(of["least_wall"]),
                ms(of["cpu"]),
                mib(of["rss"] * 1024),
                mib(of["stored"]),
                str(of["runs"]),
            ]
            for kind, tools in kinds.items()
            for tool, of in tools.items()
        ]
        parts.append(
            f"One segment, {endpoint}:\n\n"
            + markdown(["segment", "who", "wall", "least", "CPU", "resident", "stored", "runs"], lines)
        )
    for part, unit in (("backlog", "segments/s"), ("replay", "seconds")):
        for endpoint, times in result.get(part, {}).items():
            lines = [
                [
                    who,
                    f"{result['segments'] / middle(took) if part == 'backlog' else middle(took):.1f}",
                    ", ".join(f"{seconds:.1f} s" for seconds in took),
                ]
                for who, took in times.items()
            ]
            parts.append(
                f"{part.capitalize()} of {result['segments']} segments, {endpoint}:\n\n"
                + markdown(["who", unit, "runs"], lines)
            )
    return "\n\n".join(parts)
