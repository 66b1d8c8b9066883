"""Show the result of a replay: the verdict, then one table per inspected step."""

import shlex

from rich.console import Group, RenderableType

from foundation.terminal import shown
from foundation.untrusted_text import visible_line
from foundation.wording import counted, join_items
from trainer.replay.replay_report import (
    Difference,
    InspectedExample,
    InspectedStep,
    ReplayReport,
    Verdict,
)
from transloom.observe.terminal.tables import AnswerTable, Column

LAYERS_SHOWN = 5
TENSORS_NAMED = 3
TEXT_CHARACTERS = 80


def replay_report_text(look: ReplayReport, examples: int) -> Group:
    """Return the complete output of `transloom replay`.

    Args:
        examples: maximum number of examples shown per step.
    """
    parts: list[RenderableType] = [_heading(look)]
    parts += [shown(f"  {name:8}", text) for name, text in verdict_lines(look.verdict)]
    if command := _command_for_bits(look):
        parts.append(shown(f"  {'bits':8}", f"to compare them, run: {command}"))
    for step in look.steps:
        if step.examples:
            parts += ["", *_step(step, examples)]
    return Group(*parts)


def verdict_lines(verdict: Verdict) -> list[tuple[str, str | tuple[str, str]]]:
    """Return the findings of a verdict as pairs of name and text; a difference is red and bold."""
    lines: list[tuple[str, str | tuple[str, str]]] = [("promise", verdict.promise)]
    lines += [("data", _data(verdict)), ("losses", _losses(verdict)), ("state", _state(verdict))]
    if verdict.first_difference:
        lines.append(("first", (_difference(verdict.first_difference), "bold red")))
    return lines


def _command_for_bits(look: ReplayReport) -> str | None:
    """Return the command of a replay that compares all bits, on the number of ranks of the run.

    Return None if this replay has already compared all bits, or if no number of ranks allows it.
    """
    if look.verdict.ranks_for_bits is None:
        return None
    steps = f"--steps {look.from_step}:{look.to_step}"
    return f"transloom replay {shlex.quote(look.run)} {steps} --ranks {look.verdict.ranks_for_bits}"


def _heading(look: ReplayReport) -> RenderableType:
    origin = f"the checkpoint of step {look.replayed_from}" if look.replayed_from else "step 0"
    last = look.replayed_from + look.steps_trained
    trained = f"steps {look.replayed_from + 1} to {last}" if look.steps_trained else "no step"
    return shown(
        (f"{look.run}, steps {look.from_step} to {look.to_step}", "bold"),
        f": {trained} trained again from {origin}, on {counted(look.ranks, 'rank')}",
    )


def _data(verdict: Verdict) -> str:
    if verdict.data == "unreadable":
        return "cannot be compared: the dataset no longer provides all data of these steps"
    return "the same in every step" if verdict.data == "same" else "DIFFERENT"


def _losses(verdict: Verdict) -> str:
    if verdict.losses == "not_compared":
        return "not compared"
    bits = "the same bits in every step" if verdict.to_the_last_bit else "the same up to rounding"
    if verdict.amplified_rounding:
        bits = "the same except for rounding, which training has amplified"
    same = verdict.losses == "same"
    told = bits if same else "DIFFERENT"
    if same and (verdict.to_the_last_bit or not verdict.largest_difference):
        return told
    return f"{told}, up to {verdict.largest_difference:.1e} apart"


def _state(verdict: Verdict) -> str:
    steps = join_items(verdict.state_steps)
    where = f"{counted(verdict.tensors, 'tensor')} of weights and moments at step {steps}"
    if verdict.state == "not_compared":
        return (
            "not compared: the run keeps no checkpoint among these steps"
            if verdict.to_the_last_bit
            else "not compared: this replay need not reproduce identical bits"
        )
    return f"the same bits in all {where}" if verdict.state == "same" else f"DIFFERENT in {where}"


def _difference(difference: Difference) -> str:
    text = f"step {difference.step} differs in {difference.what}"
    if difference.recorded is not None or difference.replayed is not None:
        recorded, replayed = map(shortened, (difference.recorded, difference.replayed))
        text += f": {recorded} in the record, {replayed} now"
    if difference.what == "state":
        named = join_items(difference.details[:TENSORS_NAMED])
        more = len(difference.details) - TENSORS_NAMED
        return f"{text}: {named}" + (f" and {more:,} more" if more > 0 else "")
    return f"{text}: {difference.details[0]}" if difference.details else text


def shortened(value: object) -> str:
    """Return a value as text; of a digest or another long text, return the beginning."""
    return f"{value[:16]}…" if isinstance(value, str) and len(value) > 16 else str(value)


def _step(step: InspectedStep, examples: int) -> list[RenderableType]:
    count = len(step.examples)
    nll = "" if step.nll == step.loss else f"   NLL {_number(step.nll)}"
    heading = shown(
        (f"step {step.step:,}", "bold"),
        f"   loss {_number(step.loss)}{nll}   gradient norm {_number(step.grad_norm)}   "
        f"{counted(count, 'example')}" + (f", the worst {examples}" if count > examples else ""),
    )
    return [
        heading,
        _examples(step.examples[:examples]),
        shown(("  largest gradients  ", "dim"), _largest(step.gradient_norms)),
        shown(
            ("  largest activations  ", "dim"),
            _largest({name: r.largest_magnitude for name, r in step.activations.items()}),
        ),
    ]


def _examples(examples: list[InspectedExample]) -> AnswerTable:
    roles = list(dict.fromkeys(role for example in examples for role in example.texts))
    table = AnswerTable(
        "loss",
        "share",
        "tokens",
        "slot/rank",
        "corpus",
        Column("shard", copied=True),
        "example",
        *(Column(role, shown=TEXT_CHARACTERS) for role in roles),
    )
    for example in examples:
        share = "not finite" if example.share is None else f"{example.share:.1%}"
        table.add(
            _number(example.loss),
            share,
            str(example.tokens),
            f"{example.slot}/{example.rank}",
            example.corpus,
            example.shard.rpartition("/")[2],
            str(example.example),
            *(visible_line(example.texts.get(role, "")) for role in roles),
        )
    return table


def _largest(values: dict[str, float | None]) -> str:
    """Return the largest values with their names; values that are not finite are listed first."""
    order = sorted(values.items(), key=lambda item: (item[1] is not None, -(item[1] or 0.0)))
    return ", ".join(f"{name} {_number(value)}" for name, value in order[:LAYERS_SHOWN])


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
