"""Layout of a run folder, and requests to its run.

::

    runs/NAME/
      run.json         id, identity of recipe and dataset
      owners/          see run_store/lease.py
      status.json      the state of the run, see run_store/record/run_status.py
      recipe.yaml      the resolved recipe of the last start
      dataset/         the dataset's manifest and tokenizers, sufficient for translation
      metrics.jsonl    steps, scores and events, see run_store/record/metrics_lines.py
      curves.bin       their numbers in blocks, for views, see run_store/record/curve_file.py
      checkpoints/     see run_store/checkpoints/format.py
      translations/    hypotheses of validations and evaluations
      time-lapse/      probe sentences at some steps, see run_store/record/time_lapse.py
      tuned-decoding.json  decoding options and weights chosen by `transloom tune-decoding`
      engines/         models converted for other engines
      log.txt          events as text, see run_store/record/log.py
      nodes.jsonl      utilization of these nodes, see run_store/record/node_usage.py
      network.json     network of the ranks and its variables, see trainer/process/network.py
      profile/         see trainer/training/step_profiler.py
      stacks/          see cluster/health/stacks.py
      control/         requests of users while the run trains
      wandb/           files of W&B
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from data_pipeline.storage.regular_files import read_regular, write_atomically
from foundation.file_model import SMALL, FileModel, error_summary
from foundation.shown_urls import url_of
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import Parent
from run_store.errors import RunMismatchError
from run_store.run_copies import mirror_folder
from run_store.run_url import is_run_url, run_url
from run_store.start import StopOrder

REQUEST_BYTES = 5  # maximum digits of the requested number of data workers


class RunMetadata(FileModel):
    """Content of run.json: the identity of a run."""

    id: str
    name: str
    dataset_identity: str
    identity: dict[str, Any]
    parent: Parent | None = None  # the origin of the first weights; None without a warm start


class _PathInRun:
    """Attribute of a run folder: the path of a file or folder in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: "RunFolder", owner: type["RunFolder"]) -> Path:
        return run.path / self._name


class RunFolder:
    """Paths in a run folder, and the run's identity.

    Attributes:
        path: the folder.
        url: the run's location in an object store, if the folder is this node's copy of it;
            otherwise None.
    """

    card_path = _PathInRun("run.json")
    recipe = _PathInRun("recipe.yaml")
    dataset = _PathInRun("dataset")
    metrics = _PathInRun("metrics.jsonl")
    curves = _PathInRun("curves.bin")
    checkpoints = _PathInRun("checkpoints")
    translations = _PathInRun("translations")
    time_lapse = _PathInRun("time-lapse")
    tuned_decoding = _PathInRun("tuned-decoding.json")
    engines = _PathInRun("engines")
    log = _PathInRun("log.txt")
    nodes = _PathInRun("nodes.jsonl")
    status = _PathInRun("status.json")
    network = _PathInRun("network.json")
    profiles = _PathInRun("profile")
    stacks = _PathInRun("stacks")
    # Request files of users. By the first, they request a number of data workers; by the second, a
    # last checkpoint and the end of the run. A supervisor renames the second file when it has
    # received the request.
    data_workers_request = _PathInRun("control/data_workers")
    stop_request = _PathInRun("control/stop")
    taken_stop_request = _PathInRun("control/stop.taken")

    def __init__(self, path: Path, url: str | None = None) -> None:
        self.path = path
        self.url = url or url_of(path)

    @classmethod
    def of(cls, location: Path | str) -> Self:
        """Return the folder of a run that this process trains or will train.

        Args:
            location: a folder, or the URL of a run in an object store.

        Raises:
            RunMismatchError: the location is a URL of no run.
        """
        if not is_run_url(location):
            return cls(Path(location))
        url = run_url(location)
        return cls(mirror_folder(url), url)

    @property
    def location(self) -> str:
        """Location of the run as users write it: its URL, or else its folder."""
        return self.url or str(self.path)

    def request_data_workers(self, count: int) -> None:
        """Write a request for a number of data workers, which the run's supervisor reads."""
        self.data_workers_request.parent.mkdir(exist_ok=True)
        write_atomically(self.data_workers_request, f"{count}\n")

    def take_data_workers_request(self) -> int | None:
        """Remove the request for data workers, and return the requested number.

        Returns:
            The number. None if there is no request, or if the request cannot be read.
        """
        taken = self.data_workers_request.with_suffix(".taken")
        try:
            # The next call reads a request that is written after this line.
            self.data_workers_request.rename(taken)
            text = read_regular(taken, REQUEST_BYTES).strip()
            taken.unlink()
        except OSError:
            return None
        return int(text) if text.isdigit() and int(text) > 0 else None

    def ask_to_stop(self, order: StopOrder | None = None) -> None:
        """Ask the supervisor to stop the run at the next step boundary.

        Args:
            order: the person who asks and the time, if known.
        """
        self.stop_request.parent.mkdir(exist_ok=True)
        try:
            write_atomically(self.stop_request, order.model_dump_json() if order else "")
        except OSError:  # the disk is full
            self.stop_request.touch()

    def stop_order(self) -> StopOrder | None:
        """Return the person and the time of the newest request to stop the run; None if unknown."""
        for file in (self.stop_request, self.taken_stop_request):
            with suppress(OSError, ValueError):
                return StopOrder.from_json(read_regular(file, SMALL.bytes))
        return None

    def stop_requested_at(self) -> int | None:
        """Return the time of a pending stop request, in ns by the file server's clock, or None."""
        return _changed_at(self.stop_request)

    def stop_requests(self) -> set[int]:
        """Return the times, in ns, of the pending stop request and of the last request taken."""
        files = (self.taken_stop_request, self.stop_request)
        return {asked_at for file in files if (asked_at := _changed_at(file)) is not None}

    def take_stop_request(self, former: int | None = None) -> bool:
        """Mark a pending stop request as taken; return whether there was a new request.

        If another user created the file of the request, this process may not be allowed to rename
        the file. The call ignores that error.

        Args:
            former: the time of a request to an earlier start of the run, which is not a new
                request, or None.
        """
        asked_at = self.stop_requested_at()
        if asked_at is not None:
            with suppress(OSError):
                self.stop_request.replace(self.taken_stop_request)
        return asked_at not in (None, former)

    def card(self) -> RunMetadata:
        """Return the content of run.json.

        Raises:
            RunMismatchError: the folder is not a run folder, or run.json is damaged or cannot be
                read.
        """
        try:
            data = read_regular(self.card_path, SMALL.bytes)
            return RunMetadata.from_json(data)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunMismatchError(
                f"{self.path} is no run: it has no {self.card_path.name}. "
                "Name the folder of a run, such as runs/phrasebook"
            ) from error
        except ValueError as error:
            raise RunMismatchError(
                f"{self.card_path} is damaged: {error_summary(error)}. Restore it from a copy"
            ) from error
        except OSError as error:
            raise RunMismatchError(
                f"{self.card_path} cannot be read: {error.strerror}. Restore it from a copy"
            ) from error

    def has_begun(self) -> bool:
        """Return whether the run has recorded or saved anything.

        Before that, its identity may still change.
        """
        recorded = self.metrics.exists() and self.metrics.stat().st_size > 0
        trained = recorded or bool(list_checkpoints(self.checkpoints))
        return trained and self.card_path.exists()


def _changed_at(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


@dataclass(frozen=True)
class StepRange:
    """Training steps from `first` to `last`, both inclusive."""

    first: int
    last: int

    def __contains__(self, step: int) -> bool:
        return self.first <= step <= self.last

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"


def profile_folder(run: RunFolder, steps: StepRange) -> Path:
    """Return the folder of all ranks' traces; it is created when the first trace is written."""
    return run.profiles / f"steps-{steps.first}-{steps.last}"
