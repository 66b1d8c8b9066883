"""Build the blocks about a run's processes: ranks, data workers, checkpoints and restarts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from foundation.untrusted_text import visible_line
from foundation.wording import counted, span
from trainer.checkpoints.checkpoint_status import CheckpointStatus
from trainer.record.facts import BY_NAME
from trainer.runs.vitals import DataWorkerVitals, RankVitals, Vitals
from transloom.observe.terminal.fact_text import plain
from transloom.observe.terminal.picture_layout import Block, Glyphs, Row, hanging, labelled
from transloom.observe.terminal.run_picture import RunPicture
from transloom.observe.terminal.time_format import ago, clock

SILENT_SECONDS = 10.0  # a process with an older heartbeat is highlighted
OLD_SECONDS = 15.0  # older vitals, which are written every two seconds, cause a warning


def processes(picture: RunPicture, width: int, now: float, glyphs: Glyphs) -> Iterable[Block]:
    """Yield blocks about the processes of a run, including a run whose processes have ended."""
    if picture.supervisor_state not in (None, "training"):
        fact = BY_NAME["supervisor_state"]
        row = labelled(fact.title, plain(fact, picture.supervisor_state))
        yield Block([row], importance=3)
    yield Block(_ranks(picture, width, now, glyphs), importance=4, noun="nodes")
    if vitals := picture.vitals:
        yield from _workers(vitals, picture, width, now, glyphs)
        yield from _unfit_nodes(vitals, picture, width)
    yield from _checkpoints(picture, width, now)
    yield from _restarts(picture, width)


def _ranks(picture: RunPicture, width: int, now: float, glyphs: Glyphs) -> list[Row]:
    vitals = picture.vitals
    if vitals is None or not (vitals.ranks or picture.vitals_are_current):
        return [labelled("ranks", _placement_text(picture))]
    if picture.state in ("finished", "stopped"):  # each rank's last state no longer matters
        where = ", ".join(_counts(vitals))
        return [labelled("ranks", f"none; until {clock(vitals.time)} {where}")]
    if not vitals.ranks:
        return [labelled("ranks", "none at present")]
    age = _age(vitals, picture, now)
    nodes = defaultdict(list)
    for rank in vitals.ranks:
        nodes[rank.node].append(rank)
    order = sorted(nodes)
    if any(_silence(rank, age) > SILENT_SECONDS for rank in vitals.ranks):
        # Nodes with a silent rank come first, because rows that do not fit are left out from the
        # end.
        order.sort(key=lambda node: -max(rank.silent_seconds for rank in nodes[node]))
    rows: list[Row] = []
    if not picture.vitals_are_current:
        rows.append(labelled("ranks", _former_ranks_text(picture, vitals)))
    for node in order:
        label = "" if rows else "ranks"
        rows.append(labelled(label, *_node(node, nodes[node], picture, age, glyphs)))
    if age > OLD_SECONDS:
        note = f"vitals.json is {span(age)} old, but the run's owner writes it every two seconds"
        rows += hanging("", note, width, 2, "yellow")
    return rows


def _counts(vitals: Vitals) -> list[str]:
    counts = Counter(rank.node for rank in vitals.ranks)
    return [f"{count} on {visible_line(node)}" for node, count in counts.items()]


def _former_ranks_text(picture: RunPicture, vitals: Vitals) -> str:
    if picture.state == "training":  # a new owner has not started any rank yet
        return f"not restarted yet; at {clock(vitals.time)}:"
    return f"none; at {clock(vitals.time)}:"


def _placement_text(picture: RunPicture) -> str:
    """Describe on which nodes the ranks were last started, for a run without vitals."""
    if not picture.nodes:
        return "none yet" if picture.state == "training" else "none"
    where = ", ".join(f"{count} on {visible_line(node)}" for node, count in picture.nodes.items())
    return where if picture.state == "training" else f"none; last placement: {where}"


def _node(
    node: str, ranks: Sequence[RankVitals], picture: RunPicture, age: float, glyphs: Glyphs
) -> Iterable[tuple[str, str]]:
    yield f"{visible_line(node)}  ", ""
    groups: dict[tuple[str, int], list[RankVitals]] = defaultdict(list)
    # A starting rank is not reported as silent, because it sends no heartbeat during its imports.
    silent = [r for r in ranks if r.phase != "start" and _silence(r, age) > SILENT_SECONDS]
    for rank in ranks:
        if rank not in silent:
            groups[rank.phase, rank.step].append(rank)
    parts = [_group(group, glyphs) for _, group in sorted(groups.items(), key=_latest_first)]
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


def _group(ranks: Sequence[RankVitals], glyphs: Glyphs) -> str:
    noun = "rank" if len(ranks) == 1 else "ranks"
    return f"{noun} {numbers([rank.rank for rank in ranks], glyphs)} {_at(ranks[0])}"


def _at(rank: RankVitals) -> str:
    if rank.phase == "start":
        return "starting"
    if rank.phase in ("data", "step"):
        return f"step {rank.step:,}"
    if rank.phase == "done":
        return f"done at step {rank.step:,}"
    return f"{'saving' if rank.phase == 'save' else rank.phase} of step {rank.step:,}"


def numbers(values: Iterable[int], glyphs: Glyphs) -> str:
    """Return numbers as text, with consecutive numbers as a range, such as `0–3, 5`."""
    ranges: list[list[int]] = []
    for value in sorted(values):
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return ", ".join(f"{a}" if a == b else f"{a}{glyphs.dash}{b}" for a, b in ranges)


def _workers(
    vitals: Vitals, picture: RunPicture, width: int, now: float, glyphs: Glyphs
) -> Iterable[Block]:
    if not vitals.data_workers or not picture.vitals_are_current:
        return
    nodes: dict[str, list[DataWorkerVitals]] = defaultdict(list)
    for worker in vitals.data_workers:
        nodes[worker.node or ""].append(worker)
    parts = []
    for node, workers in nodes.items():
        read = sum(worker.windows_read or 0 for worker in workers)
        text = f"{len(workers)} on {visible_line(node)} ({counted(read, 'window')} read)"
        if not node:
            text = f"{len(workers)} without a heartbeat yet"
        age = _age(vitals, picture, now)
        for worker in workers:
            if not worker.alive:
                silent = span(worker.silent_seconds + age)
                text += f", where worker {worker.number} has been silent for {silent}"
        parts.append(text)
    yield Block(hanging("data workers", "; ".join(parts), width, 3), importance=10)


def _checkpoints(picture: RunPicture, width: int, now: float) -> Iterable[Block]:
    rows: list[Row] = []
    vitals = picture.vitals
    if vitals and picture.vitals_are_current and vitals.checkpoint_being_written is not None:
        step = f"step {vitals.checkpoint_being_written:,} is being written"
        rows.append(labelled("checkpoints", (step, "cyan")))
    if vitals and picture.vitals_are_current and vitals.memory_checkpoint is not None:
        text = f"in memory: step {vitals.memory_checkpoint:,}"
        rows.append(labelled("" if rows else "checkpoints", text))
    complete = [one for one in picture.checkpoints if one.problem is None]
    if complete:
        text = f"complete: {_newest(complete[0], now)}"
        if others := ", ".join(f"{one.step:,}" for one in complete[1:]):
            text += f"; earlier: {others}"
        rows.append(labelled("" if rows else "checkpoints", text))
    for one in picture.checkpoints:
        if one.problem is not None:
            text = f"step {one.step:,} is damaged: {one.problem}"
            rows += hanging("" if rows else "checkpoints", text, width, 2, "red")
    if not rows:
        rows = [labelled("checkpoints", "none yet" if picture.state == "training" else "none")]
    yield Block(rows, importance=6, noun="rows of checkpoints")


def _newest(checkpoint: CheckpointStatus, now: float) -> str:
    return f"step {checkpoint.step:,} ({_size(checkpoint.bytes)}, {ago(now - checkpoint.time)})"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _restarts(picture: RunPicture, width: int) -> Iterable[Block]:
    rows: list[Row] = []
    if picture.vitals:
        for restart in reversed(picture.vitals.restarts):
            text = f"{clock(restart.time)}  {restart.cause}"
            rows += hanging("" if rows else "restarts", text, width, 2)
    if picture.job:
        for text in reversed(picture.job.restarts):
            rows += hanging("" if rows else "restarts", text, width, 2)
    if rows:
        yield Block(rows, importance=7, noun="rows of restarts")


def _unfit_nodes(vitals: Vitals, picture: RunPicture, width: int) -> Iterable[Block]:
    rows: list[Row] = []
    for text in vitals.unfit_nodes if picture.vitals_are_current else ():
        rows += hanging("" if rows else "left out", text, width, 2, "yellow")
    if rows:
        yield Block(rows, importance=5, noun="rows of nodes that are left out")


def _age(vitals: Vitals, picture: RunPicture, now: float) -> float:
    """Return the age of the vitals in seconds by this machine's clock; 0 if not current."""
    return max(0.0, now - vitals.time) if picture.vitals_are_current else 0.0


def _silence(rank: RankVitals, age: float) -> float:
    return rank.silent_seconds + age
