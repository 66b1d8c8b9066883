"""Listener of a run that also sends notifications of its events."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVarTuple

from cluster.notify.delivery import Deliveries
from cluster.notify.notification import Notification, RunEvent
from cluster.notify.run_events import RunEvents
from cluster.notify.targets import CommandTarget, TargetError, open_target
from cluster.recipe import Recipe
from cluster.supervision.owned_run import RunListener
from foundation.periodic_thread import PeriodicThread
from trainer.errors import LeaseLostError
from trainer.record.metrics_lines import Line
from trainer.runs.folder import RunFolder
from trainer.runs.vitals import Vitals

POLL_SECONDS = 1.0
Ts = TypeVarTuple("Ts")


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
        # While this process owns the run:
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
