"""The data record of a run: the cursors and digests of its steps.

    run.json, metrics.jsonl, checkpoints ──▶ starts: a cursor and a digest, by step
                                         ──▶ digests: after each recorded step
                                         ──▶ periods: the number of quarantined shards, by step

A run that continues without a quarantined shard repeats the steps since its last checkpoint with
different data. For these steps, only the lines of the repetition are valid.
"""

from dataclasses import dataclass

from data_pipeline.batching.plan import Cursor
from data_pipeline.dataset.manifest import Manifest
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import CheckpointHeader
from run_store.errors import CheckpointError, RunMismatchError
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import ReplayMismatch, Resumed, StepLine
from trainer.state.digest import START


@dataclass(frozen=True)
class StreamStart:
    """The cursor and digest after a step, which determine the following steps."""

    step: int
    cursor: Cursor
    data_digest: str


@dataclass(frozen=True)
class ManifestPeriod:
    """Steps after `after_step`, without the first `tombstones` shards of the quarantine list."""

    after_step: int
    tombstones: int


class DataRecord:
    """The data that a run has recorded, interpreted with the manifest of its dataset.

    Raises:
        RunMismatchError: the manifest is neither the run's manifest nor its descendant.
    """

    def __init__(self, run: RunFolder, manifest: Manifest) -> None:
        self._run = run
        self._manifest = manifest
        self._cursors: dict[int, Cursor] = {}  # position before each step
        self.digests = {0: START}  # running digest after each step
        self._periods = [
            ManifestPeriod(0, self._tombstones_of(run.card().dataset_identity, run.card_path.name))
        ]
        self._reached = 0  # the newest period's last step; later steps' records are outdated
        self._read_metrics()
        headers = _intact_headers(run)
        self._read_quarantines_since(headers[-1] if headers else None)
        self.digests = {s: digest for s, digest in self.digests.items() if s <= self._reached}
        self._starts = {0: StreamStart(0, Cursor(), START)}
        for step, cursor in self._cursors.items():
            if step <= self._reached and step - 1 in self.digests:
                self._starts[step - 1] = StreamStart(step - 1, cursor, self.digests[step - 1])
        for header in headers:
            cursor = Cursor.from_json(header.cursor)
            self._starts[header.step] = StreamStart(header.step, cursor, header.data_digest)
            self.digests[header.step] = header.data_digest

    def start_before(self, step: int) -> StreamStart:
        """Return the last start before a step, from which the data of the step can be computed."""
        return self._starts[max(known for known in self._starts if known < step)]

    def manifest_at(self, step: int) -> Manifest:
        """Return the manifest with the shards and tombstones valid at a step.

        The `identity` of the returned manifest is wrong; call `identity_at` instead.
        """
        tombstones = self._manifest.tombstones[: self._tombstones_at(step)]
        return self._manifest.model_copy(update={"tombstones": tombstones})

    def identity_at(self, step: int) -> str:
        """Return the identity of the manifest that was valid at a step."""
        number = self._tombstones_at(step)
        later = self._manifest.tombstones[number:]
        return later[0].parent if later else self._manifest.identity

    def _tombstones_at(self, step: int) -> int:
        return next(e.tombstones for e in reversed(self._periods) if e.after_step < max(step, 1))

    def _read_metrics(self) -> None:
        for line in read_metrics(self._run.metrics):
            if isinstance(line, StepLine):
                self._cursors[line.step] = line.cursor
                self.digests[line.step] = line.data_digest
                self._reached = max(self._reached, line.step)
            elif isinstance(line, Resumed) and line.quarantined:
                self._begin_period(line.from_step, self._tombstones_until(line.quarantined))
            elif isinstance(line, ReplayMismatch) and "data_digest" in line.fields:
                self._cursors.pop(line.replayed_step, None)
                self.digests[line.replayed_step] = line.fields["data_digest"][1]
                self._reached = max(self._reached, line.replayed_step)

    def _read_quarantines_since(self, newest: CheckpointHeader | None) -> None:
        """Add the quarantines that no line of the metrics file reports."""
        if newest:
            self._reached = max(self._reached, newest.step)
            tombstones = self._tombstones_of(newest.dataset_identity, f"step {newest.step}")
            if tombstones != self._tombstones_at(newest.step):
                # The run had no checkpoint to resume from when the shard was quarantined.
                self._periods = [ManifestPeriod(0, tombstones)]
        if self._periods[-1].tombstones < len(self._manifest.tombstones):
            after_step = newest.step if newest else 0
            self._begin_period(after_step, len(self._manifest.tombstones))

    def _begin_period(self, after_step: int, tombstones: int) -> None:
        # A run that is killed before its next checkpoint resumes from the same checkpoint again.
        # The second start adds no period.
        if tombstones != self._tombstones_at(after_step + 1):
            self._periods.append(ManifestPeriod(after_step, tombstones))
            self._reached = after_step

    def _tombstones_of(self, identity: str, where: str) -> int:
        """Return the number of tombstones in the manifest that has this identity."""
        if not self._manifest.descends_from(identity):
            raise RunMismatchError(
                f"The run in {self._run.path} used the dataset of manifest {identity[:16]}… "
                f"({where}), but the dataset here has manifest {self._manifest.identity[:16]}…. "
                "Name the run's dataset with --dataset"
            )
        return len(self._manifest.tombstones) - len(self._manifest.left_out_since(identity))

    def _tombstones_until(self, shards: list[str]) -> int:
        """Return the number of tombstones after the quarantine of the last of these shards."""
        if missing := sorted(set(shards) - self._manifest.left_out):
            raise RunMismatchError(
                f"The run in {self._run.path} continued without the shards {', '.join(missing)}, "
                "but the dataset here still has these shards. Name the run's dataset with "
                "--dataset, or restore the manifest with which the run continued"
            )
        names = [tombstone.shard for tombstone in self._manifest.tombstones]
        return max(names.index(shard) for shard in shards) + 1


def _intact_headers(run: RunFolder) -> list[CheckpointHeader]:
    """Return the headers of the run's readable checkpoints, oldest first."""
    headers = []
    for path in list_checkpoints(run.checkpoints):
        try:
            headers.append(Checkpoint(path).header)
        except CheckpointError:
            continue
    return headers
