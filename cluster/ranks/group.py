"""The ranks of one attempt at a run, behind an interface that does not block.

A rank may be stopped, hang, or be on a lost node, so no method waits for it. Requests are sent, and
every poll collects the answers that have arrived. Only the last reports are awaited, with a
deadline.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from cluster.config import ClusterConfig
from cluster.data.workers import WorkerHandle
from cluster.errors import RankHungError, RankLostError
from cluster.health.failures import cause_of, failure_of, is_certain, is_permanent
from cluster.health.hang_detector import HangDetector, Position
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks.node_memory import next_nodes
from cluster.ranks.process import RankProcess
from cluster.ranks.reports import Report
from trainer.checkpoints.memory_file import MemorySteps
from trainer.job.rank_job import RankJob
from trainer.job.supervision import Outcome
from trainer.process.placement import Placement

# Seconds to wait for the failure that caused the others. One rank's failure makes the other ranks
# fail soon, and their errors may arrive first.
WAIT_FOR_CAUSE_SECONDS = 2.0
# Seconds to wait for the last reports of the ranks when the run ends with an error.
LAST_REPORTS_SECONDS = 2.0


@dataclass(frozen=True)
class Poll:
    """Activity of a group of ranks since the last poll.

    Attributes:
        reports: the ranks' reports, each with its rank.
        outcomes: the outcomes of all ranks, in rank order, or None until all have returned.
        failure: error that ends the group, or None.
    """

    reports: list[tuple[int, Report]]
    outcomes: list[Outcome] | None = None
    failure: Exception | None = None


class RankGroup:
    """Group of processes, one per bundle, that train together."""

    def __init__(
        self,
        config: ClusterConfig,
        processes: list[RankProcess],
        names: list[str],
        clock: SuspendAwareClock,
        node_names: Sequence[str] = (),
    ) -> None:
        """Create a group, which starts to train after `start`.

        Args:
            names: the ranks' names in messages.
            node_names: the name of each rank's node in messages.
        """
        self.processes = processes
        self._config = config
        self._names = names
        self.node_names = tuple(node_names)
        self._clock = clock
        self._since = clock.poll()  # time of the request for the pending answers
        self._hang_detector = HangDetector(config.deadlines, names, self._since)
        self._rendezvous: Any = None
        self._results: list[Any] = []  # results of the calls of `train`, in rank order
        self._polls: dict[int, Any] = {}  # pending requests, by rank
        self._failed_at: float | None = None

    @property
    def actors(self) -> list[Any]:
        return [process.actor for process in self.processes]

    @property
    def is_training(self) -> bool:
        """True once the ranks have been asked to train; before that, they have nothing to save."""
        return bool(self._results)

    @property
    def nodes(self) -> list[str]:
        """Node of each rank."""
        return [process.rank_bundle.node for process in self.processes]

    def heartbeats(self) -> list[tuple[Position, float]]:
        """Return the position of each rank, and the seconds since its last heartbeat."""
        now, detector = self._clock.poll(), self._hang_detector
        return [
            (position, detector.silent_seconds(rank, now))
            for rank, position in enumerate(detector.positions)
        ]

    def start(self, job: RankJob, workers: list[WorkerHandle]) -> None:
        """Set the job, which the ranks train once their processes have started; do not wait."""
        self._job = job
        self.use_workers(workers)

    def wait(self, seconds: float) -> None:
        """Wait for the next answer that the group needs, for at most `seconds`.

        Do not wait if all answers for a stage of the startup have arrived: `poll` then begins the
        next stage.
        """
        answers = list(self._pending_answers().values())
        _, missing = ray.wait(answers, num_returns=len(answers), timeout=0)
        if missing:
            ray.wait(missing, num_returns=1, timeout=seconds)
        elif self._results:
            time.sleep(seconds)  # all ranks have failed: `poll` waits for the cause

    def poll(self) -> Poll:
        """Return the activity of the ranks since the last poll."""
        now = self._clock.poll()
        if not self._results:
            return Poll([], failure=self._advance_startup(now))
        reports = self._take_reports(now)
        outcomes, failures = self._returned()
        if failures:
            self._failed_at = self._failed_at or now
            if is_certain(failures) or now - self._failed_at > WAIT_FOR_CAUSE_SECONDS:
                cause = cause_of(failures)
                if is_permanent(cause):  # the run ends: save what the ranks completed
                    reports += self._last_reports(LAST_REPORTS_SECONDS)[0]
                return Poll(reports, failure=cause)
        elif len(outcomes) == len(self._results):
            last, failure = self._last_reports(self._config.deadlines.answer_seconds)
            by_rank = [outcomes[rank] for rank in sorted(outcomes)]
            return Poll(reports + last, None if failure else by_rank, failure)
        running = [rank for rank in range(len(self._results)) if rank not in outcomes]
        return Poll(reports, failure=self._hang_detector.hung(running, now))

    def use_workers(self, workers: list[WorkerHandle]) -> None:
        """Make every rank use these data workers."""
        for actor in self.actors:
            actor.use_workers.remote(workers)

    def report_memory_steps(self, steps: MemorySteps) -> None:
        """Send every rank the progress of the memory tier."""
        for actor in self.actors:
            actor.set_memory_steps.remote(steps)

    def request_stop(self) -> None:
        """Ask every rank to save a checkpoint at the next step boundary and to end."""
        for actor in self.actors:
            actor.request_stop.remote()

    def _pending_answers(self) -> dict[int, Any]:
        """Return the answers that the group needs to proceed, by rank."""
        if self._results:
            return dict(enumerate(self._results))
        if self._rendezvous is not None:
            return {0: self._rendezvous}
        return {rank: process.name_answer for rank, process in enumerate(self.processes)}

    def _advance_startup(self, now: float) -> Exception | None:
        """Advance the startup by one stage; return the error if the group cannot start, or None."""
        deadlines = self._config.deadlines
        timeout_seconds = deadlines.answer_seconds if self._rendezvous else deadlines.start_seconds
        answers = self._pending_answers()
        arrived = _arrived(answers)
        for rank in answers:
            if rank not in arrived:
                if now - self._since < timeout_seconds:
                    return None
                setting = "answer_seconds" if self._rendezvous else "start_seconds"
                return RankHungError(
                    f"{self._names[rank]} has not started within {timeout_seconds:g} s. If it can "
                    f"take longer, raise cluster.deadlines.{setting}"
                )
            if isinstance(error := arrived[rank], RayError):
                return failure_of(self._names[rank], Position(), error)
        self._since = now
        if self._rendezvous is None:
            one_node = len(set(self.nodes)) == 1
            self._rendezvous = self.actors[0].rendezvous.remote(one_node=one_node)
        else:
            self._train(arrived[0])
        return None

    def _train(self, rendezvous: str) -> None:
        local_ranks, ranks_of = local_ranks_of(self.nodes), Counter(self.nodes)
        copied = {target: ranks_of[source] for source, target in next_nodes(self.nodes).items()}
        self._hang_detector = HangDetector(self._config.deadlines, self._names, self._since)
        self._results = [
            process.actor.train.remote(
                self._job,
                Placement(
                    rank=rank,
                    world_size=len(self.processes),
                    local_rank=local_ranks[rank],
                    local_world_size=ranks_of[process.rank_bundle.node],
                    device=self._config.device,
                    threads=self._config.threads_per_rank,
                    rendezvous=rendezvous,
                    memory_neighbor_ranks=copied.get(process.rank_bundle.node, 0),
                    node_ids=tuple(self.nodes),
                    node_names=self.node_names,
                ),
                self._config,
            )
            for rank, process in enumerate(self.processes)
        ]

    def _take_reports(self, now: float) -> list[tuple[int, Report]]:
        """Collect the answers that have arrived, and send the next poll to these ranks."""
        reports: list[tuple[int, Report]] = []
        arrived = _arrived(self._polls)
        for rank, actor in enumerate(self.actors):
            if rank in self._polls:
                answer = arrived.get(rank)
                if answer is None or isinstance(answer, RayError):
                    continue  # after an error, the rank is dead, as its result will show
                self._hang_detector.on_answer(rank, now)
                reports += [(rank, report) for report in answer]
            self._polls[rank] = actor.poll.remote()
        for rank, report in reports:
            if isinstance(report, Position):
                self._hang_detector.on_progress(rank, report, now)
        return reports

    def _last_reports(self, seconds: float) -> tuple[list[tuple[int, Report]], Exception | None]:
        """Collect the last reports, which ranks made before they returned.

        Returns:
            The reports, each with its rank, and the error of a rank that does not answer, or None.
        """
        questions = [
            *self._polls.items(),
            *((r, a.poll.remote()) for r, a in enumerate(self.actors)),
        ]
        answers = [question for _, question in questions]
        ray.wait(answers, num_returns=len(answers), timeout=seconds)
        reports: list[tuple[int, Report]] = []
        failure: Exception | None = None
        for rank, question in questions:
            name, position = self._names[rank], self._hang_detector.positions[rank]
            try:
                answer: list[Report] = ray.get(question, timeout=0)
                reports += [(rank, report) for report in answer]
            except GetTimeoutError:
                failure = RankLostError(
                    f"{name} has finished training, but has not sent its last reports within "
                    f"{seconds:g} s; the last phase that it reported is {position}"
                )
            except RayError as error:
                failure = failure_of(name, position, error)
        return reports, failure

    def _returned(self) -> tuple[dict[int, Outcome], list[Exception]]:
        """Return the outcomes of finished ranks, and the errors of failed ones."""
        outcomes: dict[int, Outcome] = {}
        failures: list[Exception] = []
        for rank, result in _arrived(dict(enumerate(self._results))).items():
            if isinstance(result, RayError):
                position = self._hang_detector.positions[rank]
                failures.append(failure_of(self._names[rank], position, result))
            else:
                outcomes[rank] = result
        return outcomes, failures


def local_ranks_of(nodes: Sequence[str]) -> list[int]:
    """Return the local rank of each rank: its index among the ranks on the same node.

    Args:
        nodes: the node of each rank.
    """
    before: Counter[str] = Counter()
    local_ranks = []
    for node in nodes:
        local_ranks.append(before[node])
        before[node] += 1
    return local_ranks


def _arrived(answers: Mapping[int, Any]) -> dict[int, Any]:
    """Return the answers that have arrived, or the errors in their place, by rank.

    One `ray.wait` and one `ray.get` serve all ranks, because a request to Ray costs the driver more
    than an answer. `ray.get` of a list raises the first error without naming its answer. If there
    is an error, the answers are therefore read one by one.

    Args:
        answers: distinct references to answers, by rank.
    """
    if not answers:
        return {}
    ready = set(ray.wait(list(answers.values()), num_returns=len(answers), timeout=0)[0])
    arrived = {rank: answer for rank, answer in answers.items() if answer in ready}
    try:
        return dict(zip(arrived, ray.get(list(arrived.values())), strict=True))
    except RayError:
        return {rank: _value_or_error(answer) for rank, answer in arrived.items()}


def _value_or_error(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except RayError as error:
        return error
