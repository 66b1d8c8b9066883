"""Facts and kinds of events of a run: the table from which every view derives.

::

    a field of a line, with its description   ─┐
                                               ├─▶ Fact ─▶ curves, metrics, dashboard, terminal,
    FACTS: title, unit, format, places, …       ─┘          exports, docs/reference/metrics.md

To add a number of the training step, declare its field in `run_store.record.metrics_lines` and its
fact here. Every view then shows it. Formats and places are names, which the views resolve. `{unit}`
in a unit is the run's loss unit, such as "target token".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from foundation.file_model import FileModel
from run_store.record.metrics_lines import Event, SkippedLine, TrainLine, ValidationLine
from run_store.record.notify_event import NotifyEvent
from run_store.record.run_status_model import LossForm, RunStatus

# How a point of several steps represents their values: by their mean, or by the last value.
Thinning = Literal["mean", "last"]
# How the current value is computed. last: taken from the newest line; share: as a part of the time
# of recent steps; recent: over recent steps; computed: by `RunStatus`.
Current = Literal["last", "share", "recent", "computed"]
_MEANINGS = {
    "last": "In the last applied step. ",
    "share": "Share of the time of recent steps. ",
    "recent": "Over recent steps. ",
}
# first chart: shown before the user chooses charts; step: the panel of one step; status: a row of
# `status` and `watch`; progress: the printed lines of `train`; table: a column in tables of runs.
Place = Literal["first chart", "chart", "step", "status", "progress", "table"]
Places = tuple[Place, ...]
# whole: the field is an integer; rate: shown without decimals; power: as 1.00e-04.
Format = Literal["number", "seconds", "whole", "rate", "loss", "power", "percent", "span", "text"]


@dataclass(frozen=True)
class Fact:
    """Number or other value of a run, recorded in the field `name` of a line or of `RunStatus`.

    Attributes:
        name: the name of the field, in every machine-readable view.
        title: the name for people, in every view.
        unit: the unit of the value; empty for plain numbers.
        format: the format of the values.
        show: the places that show the fact.
        thin: how a point of a curve represents several steps; None for facts without a curve.
        current: how the current value is computed; None if no view shows a current value.
        extremes: the extremes that a point of several steps also has.
        band: the facts with the lowest and the highest value of each step, such as over the ranks.
        metric_name: the name in Prometheus, if it does not follow from `name`.
    """

    name: str
    title: str
    unit: str = ""
    format: Format = "number"
    show: Places = ()
    thin: Thinning | None = None
    current: Current | None = None
    extremes: tuple[Literal["min", "max"], ...] = ()
    band: tuple[str, str] | None = None
    metric_name: str | None = None

    @property
    def description(self) -> str:
        """Description of the field, taken from its class."""
        return self._description(MODELS)

    @property
    def metric(self) -> str | None:
        """Name in Prometheus after `transloom_run_`; None if the fact is not a metric.

        Shares end with `_ratio`.
        """
        if self.current is None:
            return None
        if self.metric_name:
            return self.metric_name
        base = self.name.removesuffix("_seconds" if self.current == "share" else "_fraction")
        return f"{base}_ratio" if self.current == "share" or self.format == "percent" else base

    @property
    def meaning(self) -> str:
        """Description of the current value."""
        return _MEANINGS.get(self.current or "", "") + self._description((RunStatus, *LINES))

    def _description(self, models: Iterable[type[FileModel]]) -> str:
        fields = (model.model_fields.get(self.name) for model in models)
        return " ".join(next(field.description or "" for field in fields if field).split())

    def title_of(self, form: LossForm) -> str:
        """Return the title in a run whose loss has the given form."""
        is_smoothed = self.name == "loss" and form.smooths_labels
        return f"{self.title} (smoothed)" if is_smoothed else self.title

    def unit_of(self, form: LossForm) -> str:
        """Return the unit in a run whose loss has the given form."""
        return self.unit.replace("{unit}", form.unit or "unit")


@dataclass(frozen=True)
class EventKind:
    """Kind of events of a run.

    Attributes:
        name: the field `event` of its lines, or "skipped" for skipped steps.
        title: the name for people, in every view.
        mark: the style of the marks on curves.
        notify: the event of `tracking.notify.events` that sends a notification, or None.
    """

    name: str
    title: str
    mark: Literal["restart", "resize", "skip", "repeat", "stop"]
    notify: NotifyEvent | None = None


LINES = (TrainLine, SkippedLine, ValidationLine)
MODELS = (*LINES, RunStatus)

_STEP: Places = ("step",)
_CHART: Places = ("chart", "step")
_ALL: Places = ("chart", "step", "status", "progress")
_LOSS: Places = (*_ALL, "first chart")
_SPEED: Places = (*_LOSS, "table")
_FIRST: Places = ("first chart", "step", "progress")
_STALL: Places = ("first chart", "status")
_DATA: Places = (*_STALL, "step", "progress")
_WAIT: Places = (*_CHART, "status")
_OVERVIEW: Places = ("chart", "status")
_NATS, _TIME = "nats per {unit}", "s per step"
_RANGE = ("compute_seconds_min", "compute_seconds_max")

# Each fact: name, title, unit, format, show, thin, current.
_OF_THE_CURVE = (
    Fact("step", "step", format="whole", current="computed"),
    Fact("epoch", "epoch", format="whole"),
    Fact("window", "window", format="whole"),
    Fact("offset", "offset in the window", "micro-batches", "whole"),
    Fact("data_digest", "data digest", format="text"),
    Fact("loss", "training loss", _NATS, "loss", _LOSS, "mean", "last", extremes=("min", "max")),
    Fact("nll", "training NLL", f"{_NATS}, unsmoothed", "loss", _ALL, "mean", "last"),
    Fact("grad_norm", "gradient norm", "", "number", _FIRST, "mean", "last", extremes=("max",)),
    Fact("learning_rate", "learning rate", "", "power", _FIRST, "last", "last"),
    Fact("target_tokens", "size of the step", "{unit}s", "whole"),
    Fact("target_tokens_seen", "data so far", "{unit}s", "whole", _STEP, "last", "last"),
    Fact("model_flops", "model operations", "FLOP", "whole"),
    Fact("hardware_flops", "executed operations", "FLOP", "whole"),
    Fact(
        "padding_fraction", "padding", "share of positions", "percent", ("progress",), None, "last"
    ),
    Fact("other_sums", "other sums", "per {unit}", "text"),
)
# Facts that depend on clocks, machines and restarts, not only on recipe and data.
MEASURED = (
    Fact("observed", "numbers of observers", format="text"),
    Fact("time", "time", "s since the epoch", "number", (), "last"),
    Fact("target_tokens_per_second", "speed", "{unit}s/s", "rate", _SPEED, "mean", "recent"),
    Fact("tflops_per_second", "model TFLOP/s", "", "number", _ALL, "mean", "recent"),
    Fact("tflops_per_second_per_rank", "model TFLOP/s per rank"),
    Fact("mfu", "MFU", "share of the devices' peak", "percent", _ALL, "mean", "recent"),
    Fact("step_seconds", "seconds per step", "s", "seconds", _CHART, "mean"),
    Fact("data_stall_seconds", "waiting for data", _TIME, "seconds", _DATA, "mean", "share"),
    Fact("data_stall_seconds_median", "waiting for data, median rank", _TIME, "seconds"),
    Fact(
        "data_stall_seconds_max", "waiting for data, slowest rank", _TIME, "seconds", _STEP, "mean"
    ),
    Fact("data_slowest_rank", "rank that waited longest for data", "", "whole", _STEP, "last"),
    Fact("compute_seconds_median", "computing", _TIME, "seconds", _CHART, "mean", band=_RANGE),
    Fact("compute_seconds_min", "computing, fastest rank", _TIME, "seconds", (), "mean"),
    Fact("compute_seconds_max", "computing, slowest rank", _TIME, "seconds", _STEP, "mean"),
    Fact("compute_slowest_rank", "rank that computed longest", "", "whole", _STEP, "last"),
    Fact(
        "compute_imbalance",
        "imbalance",
        "share of compute time",
        "percent",
        _ALL,
        "mean",
        "last",
    ),
    Fact("wait_seconds", "waiting for other ranks", _TIME, "seconds", _WAIT, "mean", "share"),
    Fact(
        "checkpoint_stall_seconds",
        "waiting for checkpoints",
        _TIME,
        "seconds",
        _STALL,
        "mean",
        "share",
    ),
    Fact("world_size", "ranks", "", "whole", _CHART, "last", "computed", metric_name="ranks"),
    Fact("goodput", "goodput", "share of time in the curve", "percent", _OVERVIEW, "last", "last"),
    Fact("wall_seconds", "wall time", "s", "number", (), "last", "last"),
    Fact("counted_seconds", "time in the curve", "s", "number", (), "last", "last"),
    Fact("restarts", "restarts", format="whole", current="computed"),
    Fact("lost_steps", "steps trained again", format="whole", current="computed"),
    Fact(
        "slow_ranks",
        "slow ranks",
        "times the median of the others",
        "text",
        current="computed",
        metric_name="slow_rank_factor",
    ),
)
_OF_SKIPPED_STEPS = (
    Fact("cause", "cause of the skip", format="text"),
    Fact("refusal", "reason of a guard", format="text"),
    Fact("slots", "slots of a skipped step", format="text"),
    Fact("ranks", "ranks of the skipped step's slots", format="text"),
    Fact(
        "in_a_row",
        "skipped in a row",
        "steps",
        "whole",
        current="computed",
        metric_name="skipped_steps_in_a_row",
    ),
    Fact("skipped_steps", "skipped steps", format="whole", current="computed"),
    Fact("skipped_spikes", "refused by guards", format="whole", current="computed"),
    Fact("loss_threshold", "threshold of the loss", _NATS, "loss"),
    Fact("grad_norm_threshold", "threshold of the gradient norm"),
)
_OF_VALIDATIONS = (
    Fact("scores", "scores", format="text"),
    Fact("seconds", "duration of the validation", "s", "seconds"),
    Fact("samples", "samples", format="text"),
)
_OF_THE_STATUS = (
    Fact("state", "state", format="text", current="computed"),
    Fact("job_owner", "owner", format="text", show=("status", "table")),
    Fact("priority", "priority", "", "whole", ("status", "table")),
    Fact("rank_hours", "rank hours", "h", "number", ("status",)),
    Fact("cost", "cost", "", "number", ("status", "table")),
    Fact("supervisor_state", "supervisor", "", "text", ("status",), None, "computed"),
    Fact("max_steps", "planned steps", format="whole", current="computed"),
    Fact("seconds_left", "time left", "", "span", ("status", "table")),
    Fact("step_age_seconds", "age of the last step", format="span", current="computed"),
    Fact("scores_step", "step of the newest scores", format="whole"),
    Fact("best_since_step", "first step of the best scores", format="whole"),
    Fact("checkpoint_step", "step of the newest checkpoint", format="whole", current="computed"),
    Fact(
        "checkpoint_time",
        "time of the newest checkpoint",
        "s since the epoch",
        "number",
        current="computed",
        metric_name="checkpoint_age_seconds",
    ),
    Fact("memory_checkpoint_step", "step in the memory of the nodes", format="whole"),
    Fact("corruption_step", "last corrupted step", format="whole", current="computed"),
    Fact("hang_step", "step of the last hang", format="whole", current="computed"),
    Fact("problems", "unreadable files", format="whole", current="computed"),
)
FACTS = (*_OF_THE_CURVE, *MEASURED, *_OF_SKIPPED_STEPS, *_OF_VALIDATIONS, *_OF_THE_STATUS)
BY_NAME = MappingProxyType({fact.name: fact for fact in FACTS})

_KINDS = (
    EventKind("resumed", "restart", "restart"),
    EventKind("resized", "resize", "resize"),
    EventKind("skipped", "skip", "skip"),
    EventKind("repeated", "repeat", "repeat"),
    EventKind("preempted", "stop", "stop"),
    EventKind("slow_rank", "slow rank", "skip", notify="slow_rank"),
    EventKind("rank_recovered", "no longer slow", "stop"),
    EventKind("corruption_found", "corruption", "skip", notify="bad_node"),
    EventKind("wrong_reduction", "wrong sum", "repeat", notify="bad_node"),
    EventKind("rank_hung", "hang", "stop", notify="hang"),
    EventKind("replay_mismatch", "mismatch", "skip"),
)
EVENT_KINDS = MappingProxyType({kind.name: kind for kind in _KINDS})


def kind_of(line: Event | SkippedLine) -> EventKind:
    """Return the kind of an event or of a skipped step."""
    return EVENT_KINDS[line.kind if isinstance(line, SkippedLine) else line.event]


def facts_for(*places: Place) -> Sequence[Fact]:
    """Return the facts that at least one of the places shows, in the order of the table."""
    return [fact for fact in FACTS if set(fact.show) & set(places)]
