"""A rank as a Ray actor: a process that trains, with a mailbox for its reports.

One thread trains, and another thread answers the supervisor. Before `train` is called, the actor
may wait as a warm spare, which has imported everything but has not initialized a GPU.
"""

import importlib
import os
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray

from cluster.config import ClusterConfig
from cluster.data.node_layouts import NodeSharing
from cluster.data.streams import WorkerStreams
from cluster.data.worker_client import GIVE_UP_SECONDS, WorkerClient
from cluster.data.workers import WorkerHandle
from cluster.health.stacks import enable_stack_dumps
from cluster.health.watchdog import Watchdog
from cluster.node_check.actor import NodeCheckMethods
from cluster.ranks.node_memory import memory_folder_name
from cluster.ranks.node_mirror import job_on_this_node
from cluster.ranks.node_processes import ProcessName
from cluster.ranks.reporting import ReportingMethods
from cluster.ray.environment_file import read_environment
from foundation.garbage_collection import without_garbage_collection
from foundation.openmp import limit_openmp_spin
from run_store.checkpoints.memory_file import MemorySteps
from run_store.checkpoints.memory_folder import MemoryFolder
from trainer.job.rank_job import Outcome, RankJob
from trainer.process.flight_recorder import collectives_record
from trainer.process.placement import Placement

# Share of cluster.deadlines.step_seconds after which a rank reports that no data arrives. The
# supervisor would consider the rank hung only later.
SHARE_FOR_DATA = 0.8

# Modules that a rank has imported, in import order, and its job if spares compile its layers.
Preparation = tuple[list[str], tuple[RankJob, Placement] | None]


@ray.remote(
    num_cpus=0, max_restarts=0, concurrency_groups={"control": 1, "record": 1, "reports": 1}
)
class RankActor(ReportingMethods, NodeCheckMethods):
    """Ray actor that becomes one rank of one attempt."""

    def __init__(self, gpu: str | None) -> None:
        """Prepare the process; `train` makes it a rank.

        Args:
            gpu: value of CUDA_VISIBLE_DEVICES in the rank's bundle, or None without a GPU.
        """
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            # Imports check for a GPU. With this setting, the check does not initialize CUDA.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        read_environment()
        limit_openmp_spin()
        enable_stack_dumps()
        super().__init__(Watchdog().heartbeat)
        self._client = WorkerClient([], self._mailbox.notice)
        self._job: tuple[RankJob, Placement] | None = None

    @ray.method(concurrency_group="control")
    def process_id(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def rendezvous(self, *, one_node: bool) -> str:
        """Return a rendezvous address: a file for one node, otherwise a free port of this node."""
        if one_node:
            return f"file://{ProcessName.of_this_process().new_rendezvous()}"
        return self.tcp_rendezvous()

    @ray.method(concurrency_group="record")
    def collectives(self) -> bytes:
        """Return `collectives_record`, in a separate thread: the others may be blocked."""
        return collectives_record()

    @ray.method(concurrency_group="control")
    def request_stop(self) -> None:
        self._mailbox.request_stop()

    @ray.method(concurrency_group="control")
    def set_memory_steps(self, steps: MemorySteps) -> None:
        """Receive the progress of the memory tier."""
        self._mailbox.set_memory_steps(steps)

    @ray.method(concurrency_group="control")
    def use_workers(self, workers: list[WorkerHandle]) -> None:
        """Replace the data workers that this rank uses."""
        self._client.workers = workers

    @ray.method(concurrency_group="control")
    def preparation(self) -> Preparation:
        """Return the preparation of this process for its first step, which spares repeat."""
        return list(sys.modules), self._job

    def import_trainer(self, device: str) -> None:
        """Import DeepSpeed for a device, and all modules that the trainer imports."""
        os.environ["DS_ACCELERATOR"] = device
        with without_garbage_collection():
            import trainer.assembly.run  # noqa: F401

    def prepare(self, preparation: Preparation) -> None:
        """Repeat the `preparation` of a rank, before this process becomes a rank.

        Import the modules, many of which torch and DeepSpeed import only at first use. If the
        preparation contains a job, compile the layers of its recipe. On GPUs, this process instead
        finds their code in the compiler's cache later, because it must not initialize a GPU now.
        """
        # Imported here because it imports torch.
        from trainer.zero.disable_compiler import disable_compiler_imports

        names, job = preparation
        # Keep these modules from importing torch's compiler; a rank's engine has the same
        # protection.
        with without_garbage_collection(), disable_compiler_imports():
            for name in names:
                if name not in sys.modules:
                    with suppress(Exception):  # not everything in sys.modules can be imported
                        importlib.import_module(name)
        if job:
            from trainer.assembly.engine import compile_ahead

            compile_ahead(*job)

    def train(
        self,
        job: RankJob,
        placement: Placement,
        config: ClusterConfig,
        agent: Any = None,
    ) -> Outcome:
        """Train from a checkpoint, or from step 0; return the outcome.

        Args:
            agent: the node's agent, if it requests layouts for the ranks of its node, or None.
        """
        job = job_on_this_node(job)
        if job.recipe.engine.compile == "layers" and placement.device == "cpu":
            self._job = job, placement
        # Imported here because the supervisor imports this module, too, without torch.
        with without_garbage_collection():
            from trainer.process.distributed import process_group

        placement = replace(
            placement,
            node_address=ray.util.get_node_ip_address(),
            memory_folder=self._memory_folder(job),
        )
        with process_group(placement, timedelta(seconds=2 * config.deadlines.longest_seconds)):
            # Imported here because it imports DeepSpeed, which reads the environment.
            with without_garbage_collection():
                from trainer.assembly.run import build_rank

            self._client.give_up_seconds = min(
                GIVE_UP_SECONDS, SHARE_FOR_DATA * config.deadlines.step_seconds
            )
            if agent is not None:
                self._client.sharing = NodeSharing(agent, job.attempt)
            streams = WorkerStreams(
                self._client,
                rank=placement.rank,
                ranks=placement.world_size,
                slots=job.recipe.batching.micro_batches_per_step,
                steps_ahead=config.steps_ahead,
                bytes_ahead=config.data_memory_bytes,
            )
            trainer = build_rank(
                job,
                placement=placement,
                steps=streams.open,
                supervision=self._mailbox,
            )
            with trainer:
                return trainer.train()

    def _memory_folder(self, job: RankJob) -> Path | None:
        """Create the attempt's folder in this node's memory, and keep the run's folder locked."""
        if job.memory_name is None:
            return None
        self._memory = MemoryFolder(memory_folder_name(job.memory_name))
        folder = self._memory.path / job.attempt
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder
