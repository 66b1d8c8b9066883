"""The cluster section of a recipe: where a run's ranks and data workers run."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ClusterConfig(BaseModel):
    """Placement. None of it changes the data, nor the curve beyond rounding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Annotated[
        str | None,
        Field(
            description="Ray cluster to join: HOST:PORT, or `auto` for the one on this host; "
            "null starts Ray here for the time of the run."
        ),
        "execution",
    ] = None
    ranks: Annotated[
        int,
        Field(gt=0, description="Processes that train; at most micro_batches_per_step."),
        "execution",
    ] = 2
    cpus_per_rank: Annotated[
        float,
        Field(
            gt=0,
            description="CPUs reserved for a rank; torch computes with as many threads, at least "
            "one. Below 1, ranks share a CPU.",
        ),
        "execution",
    ] = 1.0
    gpus_per_rank: Annotated[
        int, Field(ge=0, le=1, description="1 trains on CUDA, 0 on the CPU."), "execution"
    ] = 0
    data_workers: Annotated[
        int,
        Field(gt=0, description="Processes that read shards and assemble micro-batches."),
        "execution",
    ] = 1
    cpus_per_data_worker: Annotated[
        float,
        Field(ge=0, description="CPUs reserved for a data worker; it needs few."),
        "execution",
    ] = 0.0
    steps_ahead: Annotated[
        int,
        Field(gt=0, description="Steps whose data a rank asks for before it needs them."),
        "execution",
    ] = 4
    data_memory_megabytes: Annotated[
        int,
        Field(
            gt=0,
            description="Bounds the windows that a data worker keeps, and what a rank asks for "
            "ahead of time.",
        ),
        "execution",
    ] = 512

    @property
    def threads_per_rank(self) -> int:
        return max(1, int(self.cpus_per_rank))

    @property
    def data_memory_bytes(self) -> int:
        return self.data_memory_megabytes * 1_000_000
