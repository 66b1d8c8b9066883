"""Build the blocks about a run's processes: ranks, data workers, checkpoints and restarts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rich.filesize import decimal

from foundation.wording import counted, span
from trainer.record.facts import BY_NAME
from trainer.runs.vitals import DataWorkerVitals, RankVitals, Vitals
from transloom.observe.terminal.fact_text import plain
from transloom.observe.terminal.picture_layout import Block, Row, row
from transloom.observe.terminal.run_picture import RunPicture
from transloom.observe.terminal.time_format import ago, clock

SILENT_SECONDS = 10.0  # a process with an older heartbeat is highlighted
OLD_SECONDS = 15.0  # older vitals, which are written every two seconds, cause a warning


def processes(picture: RunPicture, now: float) -> Iterable[Block]:
    """Yield blocks about the processes of a run, including a run whose processes have ended."""
    if picture.supervisor_state not in (None, "training"):
        fact = BY_NAME["supervisor_state"]
        yield Block(fact.title, [plain(fact, picture.supervisor_state)], importance=3)
    yield from _ranks(picture, now)
    if picture.vitals and picture.vitals_are_current:
        yield from _workers(picture.vitals, now)
        yield Block(
            "left out",
            picture.vitals.unfit_nodes,
            importance=5,
            style="yellow",
            most=2,
            noun="rows of nodes that are left out",
        )
    yield _checkpoints(picture, now)
    yield _restarts(picture)


def _ranks(picture: RunPicture, now: float) -> Iterable[Block]:
    vitals = picture.vitals
    rows: list[Row | str] = []
    age = 0.0
    if vitals is None or not (vitals.ranks or picture.vitals_are_current):
        rows.append(_placement_text(picture))
    elif picture.state in ("finished", "stopped"):  # each rank's last state no longer matters
        rows.append(f"none; until {clock(vitals.time)} {', '.join(_counts(vitals))}")
    elif not vitals.ranks:
        rows.append("none at present")
    else:
        age = _age(vitals, now) if picture.vitals_are_current else 0.0
        if not picture.vitals_are_current:
            rows.append(_former_ranks_text(picture, vitals))
        nodes = defaultdict(list)
        for rank in vitals.ranks:
            nodes[rank.node].append(rank)
        order = sorted(nodes)
        if any(_silence(rank, age) > SILENT_SECONDS for rank in vitals.ranks):
            # Nodes with a silent rank come first, because rows that do not fit are left out from
            # the end.
            order.sort(key=lambda node: -max(rank.silent_seconds for rank in nodes[node]))
        rows += [row(*_node(node, nodes[node], picture, age)) for node in order]
    yield Block("ranks", rows, importance=4, noun="nodes")
    if age > OLD_SECONDS:
        note = f"vitals.json is {span(age)} old, but the run's owner writes it every two seconds"
        yield Block("", [note], importance=4, style="yellow", most=2)


def _counts(vitals: Vitals) -> list[str]:
    counts = Counter(rank.node for rank in vitals.ranks)
    return [f"{count} on {node}" for node, count in counts.items()]


def _former_ranks_text(picture: RunPicture, vitals: Vitals) -> str:
    if picture.state == "training":  # a new owner has not started any rank yet
        return f"not restarted yet; at {clock(vitals.time)}:"
    return f"none; at {clock(vitals.time)}:"


def _placement_text(picture: RunPicture) -> str:
    """Describe on which nodes the ranks were last started, for a run without vitals."""
    if not picture.nodes:
        return "none yet" if picture.state == "training" else "none"
    where = ", ".join(f"{count} on {node}" for node, count in picture.nodes.items())
    return where if picture.state == "training" else f"none; last placement: {where}"


def _node(
    node: str, ranks: Sequence[RankVitals], picture: RunPicture, age: float
) -> Iterable[tuple[str, str]]:
    yield f"{node}  ", ""
    groups: dict[tuple[str, int], list[RankVitals]] = defaultdict(list)
    # A starting rank is not reported as silent, because it sends no heartbeat during its imports.
    silent = [r for r in ranks if r.phase != "start" and _silence(r, age) > SILENT_SECONDS]
    for rank in ranks:
        if rank not in silent:
            groups[rank.phase, rank.step].append(rank)
    parts = [_group(group) for _, group in sorted(groups.items(), key=_latest_first)]
    yield "; ".join(parts), ""
    if picture.vitals_are_current and groups:
        last = max(_silence(rank, age) for group in groups.values() for rank in group)
        yield f"  heartbeat {ago(last)}", "dim"
    for number, rank in enumerate(silent):
        before = "; " if groups or number else ""
        words = f"{before}rank {rank.rank} silent for {span(_silence(rank, age))}, in {_at(rank)}"
        yield words, "red" if picture.vitals_are_current else ""


def _latest_first(group: tuple[tuple[str, int], list[RankVitals]]) -> tuple[int, int]:
    return -len(group[1]), -group[0][1]


def _group(ranks: Sequence[RankVitals]) -> str:
    noun = "rank" if len(ranks) == 1 else "ranks"
    return f"{noun} {numbers([rank.rank for rank in ranks])} {_at(ranks[0])}"


def _at(rank: RankVitals) -> str:
    if rank.phase == "start":
        return "starting"
    if rank.phase in ("data", "step"):
        return f"step {rank.step:,}"
    if rank.phase == "done":
        return f"done at step {rank.step:,}"
    return f"{'saving' if rank.phase == 'save' else rank.phase} of step {rank.step:,}"


def numbers(values: Iterable[int]) -> str:
    """Return numbers as text, with consecutive numbers as a range, such as `0–3, 5`."""
    ranges: list[list[int]] = []
    for value in sorted(values):
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in ranges)


def _workers(vitals: Vitals, now: float) -> Iterable[Block]:
    nodes: dict[str, list[DataWorkerVitals]] = defaultdict(list)
    for worker in vitals.data_workers:
        nodes[worker.node or ""].append(worker)
    parts = []
    for node, workers in nodes.items():
        read = sum(worker.windows_read or 0 for worker in workers)
        text = f"{len(workers)} on {node} ({counted(read, 'window')} read)"
        if not node:
            text = f"{len(workers)} without a heartbeat yet"
        for worker in workers:
            if not worker.alive:
                silent = span(worker.silent_seconds + _age(vitals, now))
                text += f", where worker {worker.number} has been silent for {silent}"
        parts.append(text)
    if parts:
        yield Block("data workers", ["; ".join(parts)], importance=10, most=3)


def _checkpoints(picture: RunPicture, now: float) -> Block:
    rows: list[Row | str] = []
    vitals = picture.vitals if picture.vitals_are_current else None
    if vitals and vitals.checkpoint_being_written is not None:
        step = f"step {vitals.checkpoint_being_written:,} is being written"
        rows.append(row((step, "cyan")))
    if vitals and vitals.memory_checkpoint is not None:
        rows.append(f"in memory: step {vitals.memory_checkpoint:,}")
    complete = [one for one in picture.checkpoints if one.problem is None]
    if complete:
        newest = complete[0]
        size, age = decimal(newest.bytes), ago(now - newest.time)
        text = f"complete: step {newest.step:,} ({size}, {age})"
        if others := ", ".join(f"{one.step:,}" for one in complete[1:]):
            text += f"; earlier: {others}"
        rows.append(text)
    rows += [
        row((f"step {one.step:,} is damaged: {one.problem}", "red"))
        for one in picture.checkpoints
        if one.problem is not None
    ]
    if not rows:
        rows = ["none yet" if picture.state == "training" else "none"]
    return Block("checkpoints", rows, importance=6, most=2, noun="rows of checkpoints")


def _restarts(picture: RunPicture) -> Block:
    restarts = picture.vitals.restarts if picture.vitals else ()
    texts = [f"{clock(restart.time)}  {restart.cause}" for restart in reversed(restarts)]
    texts += reversed(picture.job.restarts if picture.job else ())
    return Block("restarts", texts, importance=7, most=2, noun="rows of restarts")


def _age(vitals: Vitals, now: float) -> float:
    """Return the age of the vitals in seconds by this machine's clock."""
    return max(0.0, now - vitals.time)


def _silence(rank: RankVitals, age: float) -> float:
    return rank.silent_seconds + age
