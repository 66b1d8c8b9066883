"""The cluster section of a recipe: where a run's ranks and data workers run."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
RankCount = Annotated[int, Field(gt=0)]


class RankRange(BaseModel):
    """Between how many ranks a run may shrink and grow."""

    model_config = _STRICT

    min: RankCount
    max: RankCount

    @model_validator(mode="after")
    def _in_order(self) -> "RankRange":
        if self.min > self.max:
            raise ValueError(f"ranks has min {self.min} and max {self.max}: swap them")
        return self


class DeadlinesConfig(BaseModel):
    """After how long a rank that gets no further is taken for hung, by phase."""

    model_config = _STRICT

    start_seconds: Annotated[
        float,
        Field(gt=0, description="Joining the group, building the engine, loading the state."),
        "execution",
    ] = 900.0
    step_seconds: Annotated[
        float, Field(gt=0, description="One step, with waiting for its data."), "execution"
    ] = 600.0
    validation_seconds: Annotated[
        float, Field(gt=0, description="One validation, with decoding."), "execution"
    ] = 3600.0
    save_seconds: Annotated[
        float,
        Field(gt=0, description="Copying the state, with waiting for the write before."),
        "execution",
    ] = 1800.0
    answer_seconds: Annotated[
        float,
        Field(gt=0, description="Any answer of the process at all, in whatever phase."),
        "execution",
    ] = 30.0

    @property
    def longest_seconds(self) -> float:
        return max(self.model_dump().values())


class ClusterConfig(BaseModel):
    """Placement. None of it changes the data, nor the curve beyond rounding."""

    model_config = _STRICT

    address: Annotated[
        str | None,
        Field(
            description="Ray cluster to join: HOST:PORT, or `auto` for the one on this host; "
            "null starts Ray here for the time of the run."
        ),
        "execution",
    ] = None
    ranks: Annotated[
        RankCount | RankRange,
        Field(
            description="Processes that train, at most micro_batches_per_step; or {min, max}: as "
            "many as the cluster offers, fewer after a loss, more when it has room again."
        ),
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
    niceness: Annotated[
        int,
        Field(
            ge=0,
            le=19,
            description="Of ranks and data workers, on top of the driver's own, where Ray is "
            "started here. On a cluster that is joined RAY_worker_niceness counts, in the "
            "environment of each node's `ray start`; it is 15 by default.",
        ),
        "execution",
    ] = 0
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

    warm_spares: Annotated[
        bool,
        Field(
            description="Keep a process with everything imported for every rank, which takes its "
            "place at once if it is lost."
        ),
        "execution",
    ] = True
    deadlines: DeadlinesConfig = DeadlinesConfig()
    grace_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="After a request to stop: how long the run may take to leave a checkpoint.",
        ),
        "execution",
    ] = 120.0
    wait_for_ranks_seconds: Annotated[
        float,
        Field(ge=0, description="How long to wait for room for the least number of ranks."),
        "execution",
    ] = 300.0
    wait_for_head_seconds: Annotated[
        float,
        Field(
            gt=0,
            lt=60,
            description="How long to wait for a head of the cluster that does not answer. Below "
            "60: after that (gcs_rpc_server_reconnect_timeout_s) Ray ends every process.",
        ),
        "execution",
    ] = 45.0

    @property
    def max_ranks(self) -> int:
        return self.ranks if isinstance(self.ranks, int) else self.ranks.max

    @property
    def min_ranks(self) -> int:
        return self.ranks if isinstance(self.ranks, int) else self.ranks.min

    @property
    def least_cpus(self) -> float:
        """Reserved by the least number of ranks and by the data workers."""
        workers = self.data_workers * self.cpus_per_data_worker
        return self.min_ranks * self.cpus_per_rank + workers

    @property
    def least_gpus(self) -> int:
        return self.min_ranks * self.gpus_per_rank

    @property
    def threads_per_rank(self) -> int:
        return max(1, int(self.cpus_per_rank))

    @property
    def data_memory_bytes(self) -> int:
        return self.data_memory_megabytes * 1_000_000
