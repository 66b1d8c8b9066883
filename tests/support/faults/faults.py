"""Faults that are applied while a process of a run waits at a moment."""

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

ROOM_BYTES = 200_000_000  # size of the small disk
FULL_SECONDS = 3.0


class Fault:
    """Kind of fault.

    Attributes:
        name: description for people.
        rank: the rank that stops at the moment.
        options: options of the run.
        holds: whether the process at the moment remains stopped.
        again: whether the driver ends, so that the same command must be repeated.
        goes_on: whether no rank is restarted.
        strikes_once: whether each moment needs a separate run: the repair takes longer than the
            time to the next moment, or the run saves a checkpoint and skips that moment.
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
        """Prepare the run before the driver is started."""

    def strike(self, trial: Trial, reached: Reached) -> None:
        """Apply the fault while the process waits at the moment."""
        raise NotImplementedError

    def mend(self, trial: Trial) -> None:
        """Repair the damage like an operator, after the process may continue."""

    def check(self, trial: Trial, told: str) -> None:
        """Check other conditions for the run after the fault.

        told: the run's log since the fault.
        """

    def clean_up(self, trial: Trial) -> None:
        """Clean up after the run."""

    def is_expected(self, exit_code: int) -> bool:
        """Return whether the driver may end with this exit code after the fault."""
        return exit_code == 0


class KilledRank(Fault):
    def __init__(self, rank: int) -> None:
        self.name = f"kill -9 of rank {rank}"
        self.rank = rank

    def strike(self, trial: Trial, reached: Reached) -> None:
        os.kill(reached.process_id, signal.SIGKILL)


class KilledAfterNaN(KilledRank):
    """Kill of a rank after a NaN in its slot, on which all ranks agree again after a repetition."""

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
    """Rank that answers requests but makes no progress."""

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
        """Do nothing, because the process already waits."""

    def check(self, trial: Trial, told: str) -> None:
        others, own = _stacks(trial, told)
        assert "in reach" in own  # the function of sitecustomize.py in which the rank waits
        # While rank 1 writes in the background, rank 0 may train its last step.
        trains = "while others are in phase step" in told
        assert ("in train" if trains else "MainThread") in others


def _stacks(trial: Trial, told: str) -> list[str]:
    """Return the ranks' stacks, which are written at a hang; check that the message names them."""
    newest = max(trial.run.stacks.iterdir(), key=lambda folder: folder.stat().st_mtime)
    assert f"The stacks of all ranks are in {newest}" in told
    return [file.read_text() for file in sorted(newest.glob("rank-*.txt"))]


class KilledWorkers(Fault):
    """Kill of some or all data workers."""

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
    """Kill of rank 1 and, at the same time, of all actors of a class."""

    rank = 1

    def __init__(self, name: str, actor: str) -> None:
        self.name = f"kill -9 of {name}"
        self._actor = actor

    def strike(self, trial: Trial, reached: Reached) -> None:
        rank = psutil.Process(reached.process_id)
        for process in {rank, *trial.cluster.actors(self._actor)}:
            process.kill()


class KilledNode(Fault):
    """Kill of a raylet: its ranks must notice it themselves. Another node joins afterwards."""

    name = "kill -9 of a raylet with all ranks"
    strikes_once = True
    # The ranks need more CPUs than the head has, so they run on the other node, with a thread each.
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
    """File system of the run's folder that is full for some seconds."""

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
            # write until an error, because the run writes at the same time and the free space is
            # unknown
            while True:
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
    """Damage to the newest checkpoint, which is found when a rank is restarted."""

    name = "a byte of the newest checkpoint flipped, then kill -9 of rank 1"
    rank = 1

    def strike(self, trial: Trial, reached: Reached) -> None:
        # An earlier checkpoint must exist. The newest one may not be complete yet.
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
