"""Detect the events of a run in data that its driver already has, and notify users of the events.

Each method receives one source, and calls `emit` with the events that it finds:

    line          lines of the metrics file     skipped_steps, loss_spike, slow_rank, best_score,
                                                bad_node
    notice        notices of the supervisor     bad_node, stopped
    vitals        restarts with their causes    restarts
    poll          the clock                     stalled
    ended_by      the error that ended the run  failed
    ended         the newest checkpoint         finished

Several threads call the methods: the supervisor's thread calls `line`, `notice` and the last two
methods; `vitals` and `poll` each have a separate thread. No method waits for anything.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVarTuple

from cluster.errors import EmbeddedRayError, RankLostError
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.notify.delivery import Deliveries
from cluster.notify.loss_spikes import LossSpikeDetector
from cluster.notify.notification import Notification, NotifiedScore, RunEvent
from cluster.notify.targets import CommandTarget, TargetError, open_target
from cluster.recipe import Recipe
from cluster.supervision.run_listener import NODE_EXCLUDED, RunListener
from foundation.periodic_thread import PeriodicThread
from foundation.terminal import full_message
from foundation.wording import counted, span, steps_of
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import read_header
from run_store.errors import LeaseLostError, RunError
from run_store.folder import RunFolder
from run_store.record.event_text import event_text
from run_store.record.facts import kind_of
from run_store.record.metrics_lines import Line, SkippedLine, TrainLine, ValidationLine
from run_store.record.notify_event import NotifyEvent
from run_store.record.record_end import read_record_end
from run_store.record.recorded_status import MANY_BYTES, end_reason
from run_store.record.vitals import Vitals
from run_store.scores import BestScore, keep_best
from run_store.start import STOPPED_AT

# The same limits as in deploy/prometheus/transloom.rules.yml.
RESTARTS = 3
RESTARTS_SECONDS = 1800.0
SKIPPED_IN_A_ROW = 2
POLL_SECONDS = 1.0
Ts = TypeVarTuple("Ts")


class RunEvents:
    """Detector of the events of one run, while one driver owns it."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        emit: Callable[[RunEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the best scores so far.

        Args:
            emit: called with each event, by any thread; it must not block.
            clock: seconds of a monotonic clock, for tests.
        """
        self._recipe = recipe
        self._run = run
        self._emit = emit
        self._name = run.path.name
        self._best: dict[str, BestScore] = {}
        self._step = 0
        with suppress(OSError):
            record = read_record_end(run.metrics, MANY_BYTES)
            self._step = record.step
            for line in record.validations:
                keep_best(self._best, line.scores, line.step)
        self._spikes = LossSpikeDetector()
        self._lines = 0  # number of step lines that this driver has recorded
        self._last_skipped = 0
        self._vitals: Vitals | None = None
        self._notified_until = 0.0  # time of the newest restart that was notified
        self._clock = SuspendAwareClock(clock)
        self._lines_seen = 0
        self._stalled_since = self._clock.poll()
        self._is_stalled = False
        self._is_stopped = False

    def line(self, line: Line) -> None:
        """Process a line that the run has recorded, or the line of a repeated step."""
        match line:
            case TrainLine():
                self._step_ended(line.step)
                if spike := self._spikes.add(line.loss):
                    self._notify(
                        "loss_spike",
                        f"The training loss of run {self._name} has risen to "
                        f"{spike.loss:.3f} at step {line.step:,}. The median of the steps "
                        f"before was {spike.before:.3f}.",
                        NotifiedScore(name="training_loss", value=spike.loss),
                    )
            case SkippedLine():
                self._step_ended(line.step)
                if line.step > self._last_skipped:  # a restart repeats steps
                    self._last_skipped = line.step
                    self._skipped(line)
            case ValidationLine():
                self._validated(line)
            case _ if event := kind_of(line).notify:
                self._notify(event, f"Run {self._name}: {event_text(line)}", step=line.step)

    def notice(self, text: str) -> None:
        """Process a notice of the supervisor."""
        if text.endswith(NODE_EXCLUDED):
            self._notify("bad_node", f"Run {self._name} leaves out a node: {text}.")
        elif STOPPED_AT in text and not self._is_stopped:
            self._is_stopped = True
            self._notify("stopped", f"Run {self._name} stops: {text}.")

    def vitals(self, vitals: Vitals) -> None:
        """Process the vitals of the run's processes, with its newest restarts."""
        self._vitals = vitals
        since = max(vitals.time - RESTARTS_SECONDS, self._notified_until)
        recent = [restart for restart in vitals.restarts if restart.time > since]
        if len(recent) < RESTARTS:
            return
        self._notified_until = recent[-1].time
        self._notify(
            "restarts",
            f"The ranks of run {self._name} were restarted {counted(len(recent), 'time')} "
            f"within {span(RESTARTS_SECONDS)}, after step {self._step:,}. The last cause: "
            f"{recent[-1].cause}",
        )

    def poll(self) -> None:
        """Compare the time since the last step with the limit; call this once a second."""
        now = self._clock.poll()
        if self._lines != self._lines_seen:
            self._lines_seen, self._stalled_since, self._is_stalled = self._lines, now, False
        limit_seconds = 60 * self._recipe.tracking.notify.stalled_minutes
        if self._is_stalled or now - self._stalled_since < limit_seconds:
            return
        self._is_stalled = True
        self._notify(
            "stalled",
            f"Run {self._name} has recorded no step for {span(limit_seconds)}, after step "
            f"{self._step:,}. {self._phases_text()}",
        )

    def ended_by(self, error: Exception) -> None:
        """Process the error that ended the run."""
        events = self._recipe.tracking.notify.events
        # These errors mean that a retry budget is used up.
        is_budget = isinstance(error, RankLostError | EmbeddedRayError)
        event: NotifyEvent = "restarts" if is_budget and "failed" not in events else "failed"
        self._notify(
            event,
            f"Run {self._name} has failed after step {self._step:,}: {full_message(error)}",
            ended=True,
        )

    def ended(self) -> None:
        """Process the end of the run without an error; the run may be finished or only stopped."""
        if not self._lines:
            return  # the run was complete before this driver started
        reason = None
        with suppress(RunError, OSError):
            for newest in list_checkpoints(self._run.checkpoints)[-1:]:
                reason = end_reason(read_header(newest), self._recipe.trainer.max_steps)
        if reason is None:
            return
        measure = self._recipe.checkpoints.best_by
        best = self._best.get(measure)
        score = NotifiedScore(name=measure, value=best.value) if best else None
        best_text = f" Best {measure}: {best.value:.4g} at step {best.step:,}." if best else ""
        self._notify(
            "finished",
            f"Run {self._name} has finished: {reason}.{best_text}",
            score,
            ended=True,
        )

    def _step_ended(self, step: int) -> None:
        if step <= self._step:
            self._spikes.reset()  # after a restart, steps are repeated
        self._step = step
        self._lines += 1

    def _skipped(self, line: SkippedLine) -> None:
        limit = self._recipe.trainer.stop_after_skipped_steps
        if line.in_a_row == SKIPPED_IN_A_ROW:
            self._notify(
                "skipped_steps",
                f"Run {self._name} has skipped {counted(line.in_a_row, 'step')} in a row, up "
                f"to step {line.step:,}, because {line.reason}. The run ends after {limit} "
                "(trainer.stop_after_skipped_steps).",
            )
        elif line.cause == "spike" and line.in_a_row == 1:
            score = NotifiedScore(name="training_loss", value=line.loss) if line.loss else None
            self._notify(
                "loss_spike",
                f"Run {self._name} has skipped step {line.step:,}, because {line.reason} "
                "(trainer.spike_guard).",
                score,
            )

    def _validated(self, line: ValidationLine) -> None:
        measure = self._recipe.checkpoints.best_by
        before = self._best.get(measure)
        keep_best(self._best, line.scores, line.step)
        best = self._best.get(measure)
        if best is None or best == before:
            return
        earlier = f" Before: {before.value:.4g} at step {before.step:,}." if before else ""
        self._notify(
            "best_score",
            f"Run {self._name} has its best validation {measure} so far: {best.value:.4g} at "
            f"step {steps_of(best.step, self._recipe.trainer.max_steps)}.{earlier}",
            NotifiedScore(name=measure, value=best.value),
            step=line.step,
        )

    def _notify(
        self,
        event: NotifyEvent,
        text: str,
        score: NotifiedScore | None = None,
        *,
        step: int | None = None,
        ended: bool = False,
    ) -> None:
        """Emit an event of a step, by default of the newest one."""
        self._emit(RunEvent(event, text, self._step if step is None else step, score, ended))

    def _phases_text(self) -> str:
        """Describe the current activity of the ranks."""
        if self._vitals is None or not self._vitals.ranks:
            return "No ranks are running."
        phases = Counter(rank.phase for rank in self._vitals.ranks)
        shown = ", ".join(f"{phase} ({counted(n, 'rank')})" for phase, n in phases.most_common())
        return f"Phase of its ranks: {shown}."


class NotifyingListener:
    """Wrapper of a listener that also notifies the targets of a recipe.

    Only the run's owner sends notifications, while the context `logging` lasts. At its end, the
    context waits for the last deliveries for a limited time; see `cluster.notify.delivery`.
    """

    def __init__(
        self,
        listener: RunListener,
        recipe: Recipe,
        run: RunFolder,
        environment: Mapping[str, str],
    ) -> None:
        """Wrap a listener.

        Args:
            environment: the variables with the commands of the targets.
        """
        self._listener = listener
        self._recipe = recipe
        self._config = recipe.tracking.notify
        self._run = run
        self._environment = environment
        # None unless this process owns the run:
        self._events: RunEvents | None = None
        self._deliveries: Deliveries | None = None

    @contextmanager
    def logging(self) -> Iterator[None]:
        with self._listener.logging():
            targets = self._open_targets()
            deliveries = self._deliveries = Deliveries(targets, self._listener.notice)
            events = self._events = RunEvents(self._recipe, self._run, self._send)
            interval_seconds = POLL_SECONDS if "stalled" in self._config.events else None
            try:
                with PeriodicThread("stalled run", interval_seconds, events.poll):
                    yield
            except (LeaseLostError, KeyboardInterrupt):
                deliveries.abandon()  # another process owns the run, or a user waits for the end
                raise
            except Exception as error:
                self._detect(RunEvents.ended_by, error)
                deliveries.finish()
                raise
            else:
                self._detect(RunEvents.ended)
                deliveries.finish()
            finally:
                self._events = self._deliveries = None

    def notice(self, text: str) -> None:
        self._detect(RunEvents.notice, text)
        self._listener.notice(text)

    def log_detail(self, text: str) -> None:
        self._listener.log_detail(text)

    def line(self, line: Line) -> None:
        self._detect(RunEvents.line, line)
        self._listener.line(line)

    def vitals(self, vitals: Vitals) -> None:
        self._detect(RunEvents.vitals, vitals)
        self._listener.vitals(vitals)

    def _detect(self, process: Callable[[RunEvents, *Ts], None], *source: *Ts) -> None:
        """Let the detector of events process a source; the run continues after any error there."""
        if events := self._events:
            with suppress(Exception):
                process(events, *source)

    def _open_targets(self) -> list[CommandTarget]:
        """Return the targets that the environment configures; report the others."""
        targets = []
        for target in self._config.targets:
            try:
                targets.append(open_target(target, self._environment))
            except TargetError as error:
                self._listener.notice(f"a target gets no notifications: {error}")
        return targets

    def _send(self, event: RunEvent) -> None:
        """Append an event to the queues of all targets if the recipe selects it."""
        if self._deliveries and event.event in self._config.events:
            max_steps = self._recipe.trainer.max_steps
            self._deliveries.put(Notification.of(event, self._run, max_steps))
