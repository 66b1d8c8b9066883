"""Build the blocks about a run's processes: ranks, data workers, checkpoints and restarts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rich.filesize import decimal

from foundation.wording import counted, span
from trainer.runs.vitals import DataWorkerVitals, RankVitals, Vitals
from transloom.observe.terminal.picture_layout import Block, Row, listed, row
from transloom.observe.terminal.run_picture import RunPicture
from transloom.observe.terminal.run_status_text import nodes_text
from transloom.observe.terminal.time_format import ago, clock

SILENT_SECONDS = 10.0  # a process with an older heartbeat is highlighted
OLD_SECONDS = 15.0  # older vitals, which are written every two seconds, cause a warning


def processes(picture: RunPicture, now: float) -> list[Block]:
    """Return blocks about the processes of a run, including a run whose processes have ended."""
    vitals = picture.vitals if picture.vitals_are_current else None
    age = max(0.0, now - vitals.time) if vitals else 0.0
    job_restarts = picture.job.restarts if picture.job else ()
    restarts = picture.vitals.restarts if picture.vitals else ()
    none = "none yet" if picture.state == "training" else "none"
    causes = [f"{clock(restart.time)}  {restart.cause}" for restart in reversed(restarts)]
    checkpoints = [*_checkpoints(picture, vitals, now)] or [none]
    return [
        Block(listed("ranks", _ranks(picture, age)), least=2, most=1, noun="nodes", has_gap=True),
        Block(listed("checkpoints", checkpoints), noun="rows of checkpoints"),
        Block(listed("restarts", [*causes, *reversed(job_restarts)]), noun="rows of restarts"),
        Block(
            listed("left out", vitals.unfit_nodes if vitals else ()),
            style="yellow",
            noun="rows of nodes that are left out",
        ),
        Block(listed("data workers", _workers(vitals, age) if vitals else ()), least=0, most=3),
    ]


def _ranks(picture: RunPicture, age: float) -> Iterable[Row | str]:
    vitals = picture.vitals
    if vitals is None or not (vitals.ranks or picture.vitals_are_current):
        yield _placement_text(picture)
        return
    if picture.state in ("finished", "stopped"):  # each rank's last state no longer matters
        counts = Counter(rank.node for rank in vitals.ranks)
        yield f"none; until {clock(vitals.time)} {nodes_text(counts)}"
        return
    if not vitals.ranks:
        yield "none at present"
        return
    if age > OLD_SECONDS:
        note = f"vitals.json is {span(age)} old, but the run's owner writes it every two seconds"
        yield row((note, "yellow"))
    if not picture.vitals_are_current:  # perhaps a new owner has not started any rank yet
        what = "not restarted yet" if picture.state == "training" else "none"
        yield f"{what}; at {clock(vitals.time)}:"
    nodes = defaultdict(list)
    for rank in vitals.ranks:
        nodes[rank.node].append(rank)
    for node in sorted(nodes, key=lambda node: (-_longest_silence(nodes[node], age), node)):
        yield row(*_node(node, nodes[node], picture.vitals_are_current, age))


def _longest_silence(ranks: Iterable[RankVitals], age: float) -> float:
    """Return for how long a rank is silent, or 0 if no rank is.

    Nodes with a silent rank come first, because rows that do not fit are left out from the end.
    """
    longest = max(rank.silent_seconds + age for rank in ranks)
    return longest if longest > SILENT_SECONDS else 0.0


def _placement_text(picture: RunPicture) -> str:
    """Describe on which nodes the ranks were last started, for a run without vitals."""
    is_training, nodes = picture.state == "training", nodes_text(picture.nodes)
    if not nodes:
        return "none yet" if is_training else "none"
    return nodes if is_training else f"none; last placement: {nodes}"


def _node(
    node: str, ranks: Sequence[RankVitals], are_current: bool, age: float
) -> Iterable[tuple[str, str]]:
    # A starting rank is not reported as silent, because it sends no heartbeat during its imports.
    silent = [r for r in ranks if r.phase != "start" and r.silent_seconds + age > SILENT_SECONDS]
    others = [rank for rank in ranks if rank not in silent]
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for rank in others:
        groups[_at(rank), rank.step].append(rank.rank)
    texts = [
        f"{'ranks' if group[1:] else 'rank'} {numbers(group)} {phase}"
        for (phase, step), group in sorted(groups.items(), key=_latest_first)
    ]
    yield f"{node}  {'; '.join(texts)}", ""
    if are_current and others:
        yield f"  heartbeat {ago(max(rank.silent_seconds for rank in others) + age)}", "dim"
    for number, rank in enumerate(silent):
        before = "; " if others or number else ""
        silence = span(rank.silent_seconds + age)
        words = f"{before}rank {rank.rank} silent for {silence}, in {_at(rank)}"
        yield words, "red" if are_current else ""


def _latest_first(group: tuple[tuple[str, int], list[int]]) -> tuple[int, int]:
    return -len(group[1]), -group[0][1]


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


def _workers(vitals: Vitals, age: float) -> Iterable[str]:
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
                silent = span(worker.silent_seconds + age)
                text += f", where worker {worker.number} has been silent for {silent}"
        parts.append(text)
    if parts:
        yield "; ".join(parts)


def _checkpoints(picture: RunPicture, vitals: Vitals | None, now: float) -> Iterable[Row | str]:
    if vitals and vitals.checkpoint_being_written is not None:
        yield row((f"step {vitals.checkpoint_being_written:,} is being written", "cyan"))
    if vitals and vitals.memory_checkpoint is not None:
        yield f"in memory: step {vitals.memory_checkpoint:,}"
    if complete := [one for one in picture.checkpoints if one.problem is None]:
        newest = complete[0]
        size, age = decimal(newest.bytes), ago(now - newest.time)
        earlier = ", ".join(f"{one.step:,}" for one in complete[1:])
        text = f"complete: step {newest.step:,} ({size}, {age})"
        yield f"{text}; earlier: {earlier}" if earlier else text
    for one in picture.checkpoints:
        if one.problem is not None:
            yield row((f"step {one.step:,} is damaged: {one.problem}", "red"))
