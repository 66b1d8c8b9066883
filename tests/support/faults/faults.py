"""Faults that strike a run while one of its processes waits at a moment."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from run_store.checkpoints.folder_names import list_checkpoints
from support.cluster.processes import wait_until
from support.faults.moments import MID_STEP, Reached
from support.faults.recipe import DATA_WORKERS
from support.faults.trial import Trial
from support.machine_parts import missing

ROOM_BYTES = 200_000_000  # of the small disk
FULL_SECONDS = 3.0


class Fault:
    """One kind of fault.

    Attributes:
        name: for people.
        rank: which rank is waited for at the moment.
        options: of the run.
        holds: whether the process at the moment is left waiting there.
        again: whether the driver ends, so that the same command has to be given again.
        goes_on: whether no rank is started again.
        strikes_once: whether each moment needs a separate run: mending takes longer than the way
            to the next moment, or the run saves a checkpoint and does not come to that moment.
        poisons: a step and a rank whose gradients are NaN, in the undisturbed run as well.
    """

    name = ""
    rank = 0
    options: tuple[str, ...] = ()
    holds = False
    again = False
    goes_on = False
    strikes_once = False
    poisons: tuple[int, int] | None = None

    def prepare(self, trial: Trial) -> None:
        """Before the driver is started."""

    def strike(self, trial: Trial, reached: Reached) -> None:
        """Strike while the process waits at the moment."""
        raise NotImplementedError

    def mend(self, trial: Trial) -> None:
        """Repair the damage as an operator would; called once the process may go on."""

    def check(self, trial: Trial, told: str) -> None:
        """Check what else must be true of the run afterwards.

        told: the run's log since the fault.
        """

    def clean_up(self, trial: Trial) -> None:
        """After the run."""

    def is_expected(self, exit_code: int) -> bool:
        """Return whether the driver that was struck may end so."""
        return exit_code == 0


class KilledRank(Fault):
    def __init__(self, rank: int) -> None:
        self.name = f"kill -9 of rank {rank}"
        self.rank = rank

    def strike(self, trial: Trial, reached: Reached) -> None:
        os.kill(reached.process_id, signal.SIGKILL)


class KilledAfterNaN(KilledRank):
    """Kill after a NaN in one rank's slot, on which all ranks agree, also on repetition."""

    poisons = (MID_STEP.step, 1)

    def __init__(self) -> None:
        super().__init__(1)
        self.name = f"NaN in a slot of rank 1 at step {MID_STEP.step}, {self.name}"


class StoppedRank(Fault):
    name = "SIGSTOP of rank 1"
    rank = 1
    options = ("cluster.deadlines.answer_seconds=15",)

    def strike(self, trial: Trial, reached: Reached) -> None:
        os.kill(reached.process_id, signal.SIGSTOP)

    def check(self, trial: Trial, told: str) -> None:
        others, own = _stacks(trial, told)
        assert "(stopped)" in own
        assert "in train" in others


class HungRank(Fault):
    """A rank that answers, and gets no further."""

    name = "rank 1 hangs"
    rank = 1
    options = (
        "cluster.deadlines.start_seconds=60",
        "cluster.deadlines.step_seconds=20",
        "cluster.deadlines.validation_seconds=20",
        "cluster.deadlines.save_seconds=20",
    )
    holds = True

    def strike(self, trial: Trial, reached: Reached) -> None:
        """Do nothing: the process waits already."""

    def check(self, trial: Trial, told: str) -> None:
        others, own = _stacks(trial, told)
        assert "in reach" in own  # the function of sitecustomize.py
        # While rank 1 writes in the background, rank 0 may train its last step.
        trains = "while others are in phase step" in told
        assert ("in train" if trains else "MainThread") in others


def _stacks(trial: Trial, told: str) -> list[str]:
    """Return each rank's stack when one was taken for hung; the message must name the folder."""
    newest = max(trial.run.stacks.iterdir(), key=lambda folder: folder.stat().st_mtime)
    assert f"The stacks of all ranks are in {newest}" in told
    return [file.read_text() for file in sorted(newest.glob("rank-*.txt"))]


class KilledWorkers(Fault):
    """Kill of some of the data workers, or of all."""

    goes_on = True

    def __init__(self, name: str, killed: int) -> None:
        self.name = f"kill -9 of {name}"
        self._killed = killed

    def strike(self, trial: Trial, reached: Reached) -> None:
        def workers() -> list[psutil.Process]:
            return trial.cluster.actors("DataWorker")

        wait_until(lambda: len(workers()) == DATA_WORKERS)
        for worker in workers()[: self._killed]:
            worker.kill()


class KilledTogether(Fault):
    """Rank 1, and at the same time all actors of a class."""

    rank = 1

    def __init__(self, name: str, actor: str) -> None:
        self.name = f"kill -9 of {name}"
        self._actor = actor

    def strike(self, trial: Trial, reached: Reached) -> None:
        rank = psutil.Process(reached.process_id)
        for process in {rank, *trial.cluster.actors(self._actor)}:
            process.kill()


class KilledNode(Fault):
    """The raylet alone: what runs on its node must notice by itself. Another node comes."""

    name = "kill -9 of a raylet with all ranks"
    strikes_once = True
    # More than the head has, so that both ranks are on the other node; one thread all the same.
    options = ("cluster.cpus_per_rank=1.5",)

    def prepare(self, trial: Trial) -> None:
        trial.cluster.add_node()

    def strike(self, trial: Trial, reached: Reached) -> None:
        trial.cluster.nodes[0].kill_raylet()

    def mend(self, trial: Trial) -> None:
        trial.cluster.add_node()

    def clean_up(self, trial: Trial) -> None:
        trial.cluster.remove_nodes()


class FullDisk(Fault):
    """The run's folder is on a small file system, which is full for a while."""

    name = f"disk full for {FULL_SECONDS:g} s"
    strikes_once = True

    def prepare(self, trial: Trial) -> None:
        trial.run.path.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs"]
        if subprocess.run(["mount", *options, trial.run.path], stderr=subprocess.PIPE).returncode:
            missing("no small disk: mounting one is not permitted here")

    def strike(self, trial: Trial, reached: Reached) -> None:
        page = bytes(4096)
        with self._ballast(trial).open("wb", buffering=0) as file, suppress(OSError):
            while True:  # the run writes meanwhile, so the free space is unknown
                file.write(page)

    def mend(self, trial: Trial) -> None:
        time.sleep(FULL_SECONDS)
        self._ballast(trial).unlink()

    def clean_up(self, trial: Trial) -> None:
        subprocess.run(["umount", "--lazy", trial.run.path], check=False)

    @staticmethod
    def _ballast(trial: Trial) -> Path:
        return trial.run.path / "ballast"


class DamagedCheckpoint(Fault):
    """The newest checkpoint turns out to be damaged when it is needed."""

    name = "a byte of the newest checkpoint flipped, then kill -9 of rank 1"
    rank = 1

    def strike(self, trial: Trial, reached: Reached) -> None:
        # There must be one before it. The last one that was begun may not be complete yet.
        wait_until(lambda: len(list_checkpoints(trial.run.checkpoints)) > 1)
        assert trial.checkpoint
        path = trial.checkpoint.file_paths()[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        os.kill(reached.process_id, signal.SIGKILL)


class KilledDriver(Fault):
    name = "kill -9 of the driver"
    again = True

    def strike(self, trial: Trial, reached: Reached) -> None:
        os.kill(trial.driver, signal.SIGKILL)

    def is_expected(self, exit_code: int) -> bool:
        return exit_code == -signal.SIGKILL


class KilledHead(Fault):
    name = "kill -9 of the Ray head, a new head"
    again = True

    def strike(self, trial: Trial, reached: Reached) -> None:
        trial.cluster.kill_head()

    def mend(self, trial: Trial) -> None:
        trial.cluster.start_head()

    def is_expected(self, exit_code: int) -> bool:
        return exit_code == 1


class Preemption(Fault):
    name = "preemption: SIGTERM to the driver"
    strikes_once = True
    again = True

    def strike(self, trial: Trial, reached: Reached) -> None:
        os.kill(trial.driver, signal.SIGTERM)

    def is_expected(self, exit_code: int) -> bool:
        return exit_code == 75
