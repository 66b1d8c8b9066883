"""The ranks of one attempt at a run, behind an interface that does not block.

A rank may be stopped, hang, or be on a lost node, so no method waits for it. Requests are sent, and
every poll collects the answers that have arrived. Only the last reports are awaited, with a
deadline.

Each rank has one pending request for reports, which it answers at once if a report is urgent, and
otherwise after `answer_interval`. `RankGroup.wait` returns early if a rank dies. Other answers are
collected with the next poll, because each reference that is awaited costs the driver time.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from cluster.config import ClusterConfig, DeadlinesConfig
from cluster.data.workers import WorkerHandle
from cluster.errors import RankHungError, RankLostError
from cluster.health.failures import RankDiedError, cause_of, failure_of, is_certain, is_permanent
from cluster.health.hang_detector import HangDetector, Position
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks.agent_client import arrived_answers
from cluster.ranks.death_watch import DeathWatch
from cluster.ranks.node_memory import next_nodes
from cluster.ranks.process import RankProcess
from cluster.ranks.reports import ReceivedReports, Report, ReportBatch
from run_store.checkpoints.memory_file import MemorySteps
from trainer.job.rank_job import Outcome, RankJob
from trainer.process.placement import Placement

# Seconds to wait for the failure that caused the other failures. One rank's failure makes the other
# ranks fail soon, and their errors may arrive first.
WAIT_FOR_CAUSE_SECONDS = 2.0
# Seconds to wait for the last reports of the ranks when the run ends with an error.
LAST_REPORTS_SECONDS = 2.0
# Seconds to wait for Ray's report of a death that an agent has already reported. Only Ray's report
# has the cause. It takes milliseconds, but seconds while the head does not respond.
DEATH_ACCOUNT_SECONDS = 0.015
# Shortest time between two answers of a rank without an urgent report, and the maximum number of
# such answers per second from all ranks.
ANSWER_SECONDS = 1.0
ANSWERS_PER_SECOND = 320
RETRY_SECONDS = 1.0
# Minimum number of ranks on a node whose agent requests layouts for them.
MIN_SHARING_RANKS = 2
# Time between two searches for hung ranks, whose deadlines are seconds or minutes.
HANG_CHECK_SECONDS = 1.0


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
        agents: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Create a group, which starts to train after `start`.

        Args:
            names: the ranks' names in messages.
            node_names: the name of each rank's node in messages.
            agents: agents, by node id, that watch the processes of the ranks of their nodes, and
                request layouts for them.
        """
        self.processes = processes
        self._config = config
        self._agents = agents
        self._names = names
        self.node_names = tuple(node_names)
        self._clock = clock
        self._since = clock.poll()  # time when the pending answers were requested
        self._hang_detector = HangDetector(config.deadlines, names, self._since)
        self._rendezvous: Any = None
        self._results: list[Any] = []  # results of the calls of `train`, in rank order
        self._polls: dict[int, Any] = {}  # pending requests for reports, by rank
        self._received = [ReceivedReports() for _ in processes]
        self._hang_checked_at = self._since - HANG_CHECK_SECONDS
        self._answer_seconds = answer_interval(len(processes), config.deadlines)
        self._poll_at = [-inf] * len(processes)  # earliest time of the next request, by rank
        self._death_watch = DeathWatch({}, ())
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
        """Wait for the next stage of the startup, or for the death of a rank that trains.

        Do not wait if all answers for a stage of the startup have arrived: `poll` then begins the
        next stage.

        Args:
            seconds: the longest time to wait.
        """
        if self._results:
            if requests := self._death_watch.pending:
                ray.wait(requests, num_returns=1, timeout=seconds)
            else:
                time.sleep(seconds)
            return
        answers = list(self._pending_answers().values())
        _, missing = ray.wait(answers, num_returns=len(answers), timeout=0)
        if missing:
            ray.wait(missing, num_returns=1, timeout=seconds)

    def poll(self) -> Poll:
        """Return the activity of the ranks since the last poll."""
        now = self._clock.poll()
        if not self._results:
            return Poll([], failure=self._advance_startup(now))
        self._death_watch.poll(now)
        reports = self._take_reports(now)
        outcomes, failures = self._returned()
        if failures:
            self._failed_at = self._failed_at or now
            if is_certain(failures) or now - self._failed_at > WAIT_FOR_CAUSE_SECONDS:
                cause = cause_of(failures)
                if is_permanent(cause):  # the run ends: keep the ranks' last reports
                    reports += self._last_reports(LAST_REPORTS_SECONDS)[0]
                return Poll(reports, failure=cause)
        elif len(outcomes) == len(self._results):
            last, failure = self._last_reports(self._config.deadlines.answer_seconds)
            by_rank = [outcomes[rank] for rank in sorted(outcomes)]
            return Poll(reports + last, None if failure else by_rank, failure)
        if now - self._hang_checked_at < HANG_CHECK_SECONDS:
            return Poll(reports)
        self._hang_checked_at = now
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
        """Return the answers that the startup needs to proceed, by rank."""
        if self._rendezvous is not None:
            return {0: self._rendezvous}
        return {rank: process.name_answer for rank, process in enumerate(self.processes)}

    def _advance_startup(self, now: float) -> Exception | None:
        """Advance the startup by one stage; return the error if the group cannot start, or None."""
        deadlines = self._config.deadlines
        timeout_seconds = deadlines.answer_seconds if self._rendezvous else deadlines.start_seconds
        answers = self._pending_answers()
        arrived = arrived_answers(answers)
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
        names = [process.name for process in self.processes]
        self._death_watch = DeathWatch(self._agents, (name for name in names if name))
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
                self._sharing_agent(process.rank_bundle.node, ranks_of),
            )
            for rank, process in enumerate(self.processes)
        ]

    def _sharing_agent(self, node: str, ranks_of: Counter[str]) -> Any:
        """Return the agent that requests layouts for the ranks of a node; None for few ranks."""
        return self._agents.get(node) if ranks_of[node] >= MIN_SHARING_RANKS else None

    def _take_reports(self, now: float) -> list[tuple[int, Report]]:
        """Collect the reports that have arrived, and send the next requests."""
        reports: list[tuple[float, int, Report]] = []
        for rank, answer in arrived_answers(self._polls).items():
            del self._polls[rank]
            if isinstance(
                answer, RayError
            ):  # the request is lost, or the rank has died, as its result shows
                self._poll_at[rank] = now + RETRY_SECONDS
            else:
                self._hang_detector.on_answer(rank, now)
                reports += self._accept(rank, answer, now)
        for rank, process in enumerate(self.processes):
            if rank not in self._polls and now >= self._poll_at[rank]:
                process.polled_at = time.monotonic()
                received = self._received[rank].end
                self._polls[rank] = process.actor.poll.remote(received, self._answer_seconds)
        for at, rank, report in sorted(reports, key=itemgetter(0)):
            if isinstance(report, Position):
                self._hang_detector.on_progress(rank, report, at)
        return [(rank, report) for _, rank, report in sorted(reports, key=itemgetter(1))]

    def _accept(self, rank: int, batch: ReportBatch, now: float) -> list[tuple[float, int, Report]]:
        """Return the new reports of a batch, each with its time by `clock` and its rank."""
        return [(at, rank, report) for at, report in self._received[rank].accept(batch, now)]

    def _last_reports(self, seconds: float) -> tuple[list[tuple[int, Report]], Exception | None]:
        """Collect the last reports, which ranks made before they returned.

        Returns:
            The reports, each with its rank, and the error of a rank that does not answer, or None.
        """
        # Use another thread of the rank, because the thread that answers polls may be waiting.
        answers = [
            actor.poll.options(concurrency_group="control").remote(self._received[rank].end, 0.0)
            for rank, actor in enumerate(self.actors)
        ]
        ray.wait(answers, num_returns=len(answers), timeout=seconds)
        now = self._clock.poll()
        reports: list[tuple[float, int, Report]] = []
        for rank, answer in arrived_answers(self._polls).items():
            if not isinstance(answer, RayError):
                reports += self._accept(rank, answer, now)
        failure: Exception | None = None
        for rank, answer in enumerate(answers):
            name, position = self._names[rank], self._hang_detector.positions[rank]
            try:
                reports += self._accept(rank, ray.get(answer, timeout=0), now)
            except GetTimeoutError:
                failure = RankLostError(
                    f"{name} has finished training, but has not sent its last reports within "
                    f"{seconds:g} s; the last phase that it reported is {position}"
                )
            except RayError as error:
                failure = failure_of(name, position, error)
        return [(rank, report) for _, rank, report in reports], failure

    def _returned(self) -> tuple[dict[int, Outcome], list[Exception]]:
        """Return the outcomes of finished ranks, and the errors of failed ones."""
        outcomes: dict[int, Outcome] = {}
        failures: list[Exception] = []
        if dead := self._dead_ranks():
            accounts = [self._results[rank] for rank in dead]
            ray.wait(accounts, num_returns=len(accounts), timeout=DEATH_ACCOUNT_SECONDS)
        results = arrived_answers(dict(enumerate(self._results)))
        for rank, result in results.items():
            if isinstance(result, RayError):
                position = self._hang_detector.positions[rank]
                failures.append(failure_of(self._names[rank], position, result))
            else:
                outcomes[rank] = result
        for rank in dead:
            if rank not in results:
                position = self._hang_detector.positions[rank]
                text = f"{self._names[rank]} has died in phase {position}: its process has ended"
                failures.append(RankDiedError(text))
        return outcomes, failures

    def _dead_ranks(self) -> list[int]:
        """Return the ranks whose end an agent has reported."""
        if not (dead := self._death_watch.dead):
            return []
        return [rank for rank, process in enumerate(self.processes) if process.name in dead]


def answer_interval(ranks: int, deadlines: DeadlinesConfig) -> float:
    """Return the seconds between two answers of a rank without an urgent report."""
    seconds = max(ANSWER_SECONDS, ranks / ANSWERS_PER_SECOND)
    return min(seconds, deadlines.answer_seconds / 3)


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
