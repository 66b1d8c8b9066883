"""The cluster section of a recipe: placement of a run's ranks and data workers."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cluster.launcher_config import KubernetesConfig, SlurmConfig
from foundation.location import Location
from foundation.section import Section, execution

RankCount = Annotated[int, Field(gt=0)]
ExitCode = Annotated[int, Field(gt=0, le=255)]
Placement = Literal["pack", "spread"]
Amount = Annotated[float, Field(gt=0)]
# Ray resources with separate fields, so `resources_per_rank` must not have them.
OWN_FIELDS = {"CPU": "cluster.cpus_per_rank", "GPU": "cluster.gpus_per_rank"}


class RankRange(Section):
    """The smallest and the largest number of ranks of an elastic run."""

    min: RankCount
    max: RankCount

    @model_validator(mode="after")
    def _in_order(self) -> "RankRange":
        if self.min > self.max:
            raise ValueError(f"ranks has min {self.min} and max {self.max}: swap them")
        return self


class DeadlinesConfig(Section):
    """Deadlines of a rank's phases, in seconds; a rank that exceeds one counts as hung."""

    start_seconds: float = execution(
        900.0, "Joining the group, building the engine and loading the state.", gt=0
    )
    step_seconds: float = execution(
        600.0,
        "Waiting for the data of a step, and computing it; `adaptive_step` shortens the latter.",
        gt=0,
    )
    adaptive_step: bool = execution(
        True,
        "Consider a rank hung when it computes one step for 10 times the median of the last 50, "
        "and for at least 30 s. false: use step_seconds, for steps whose durations vary a lot.",
    )
    validation_seconds: float = execution(3600.0, "One validation, with decoding.", gt=0)
    save_seconds: float = execution(
        1800.0, "Copying the state, including the wait for the previous write.", gt=0
    )
    answer_seconds: float = execution(30.0, "Any answer of the process, in all phases.", gt=0)

    @property
    def longest_seconds(self) -> float:
        return max(self.model_dump(exclude={"adaptive_step"}).values())


class ClusterConfig(Section):
    """Placement of ranks and data workers.

    It does not change the training data, and changes the loss curve only by rounding.
    """

    address: Location | None = execution(
        None,
        "Ray cluster to join: HOST:PORT, or `auto` for the one on this host; "
        "null starts Ray here for the time of the run.",
    )
    ranks: RankCount | RankRange = execution(
        2,
        "Processes that train, at most micro_batches_per_step; or {min, max}: as "
        "many as the cluster offers, fewer after a loss, more when capacity returns.",
    )
    cpus_per_rank: float = execution(
        1.0,
        "CPUs reserved for a rank; torch computes with as many threads, at least "
        "one. Below 1, ranks share a CPU.",
        gt=0,
    )
    niceness: int = execution(
        0,
        "Niceness of ranks and data workers, added to the driver's, if Ray is "
        "started here. On a joined cluster, RAY_worker_niceness in the environment "
        "of each node's `ray start` counts; its default is 15.",
        ge=0,
        le=19,
    )
    gpus_per_rank: int = execution(0, "1 trains on CUDA, 0 on the CPU.", ge=0, le=1)
    resources_per_rank: dict[str, Amount] = execution(
        {},
        "Custom resources that a rank reserves, such as {rack_a: 1}, as given in "
        "`ray start --resources`.",
    )
    node_labels: dict[str, str] = execution(
        {},
        "Ranks go only to nodes with all of these labels, such as {pool: train}, as given in "
        "`ray start --labels`.",
    )
    placement: Placement = execution(
        "pack",
        "pack puts ranks on as few nodes as possible, so that less data travels between nodes; "
        "spread distributes them evenly, so that each has more of its node's memory and caches.",
    )
    data_workers: int = execution(1, "Processes that read shards and assemble micro-batches.", gt=0)
    cpus_per_data_worker: float = execution(
        0.0, "CPUs reserved for a data worker, which needs few.", ge=0
    )
    steps_ahead: int = execution(4, "Steps whose data a rank requests before it needs them.", gt=0)
    data_memory_megabytes: int = execution(
        512,
        "Limit for the windows that a data worker keeps, and for the data that a rank prefetches.",
        gt=0,
    )

    warm_spares: bool = execution(
        True,
        "Keep a spare process for every rank, with all imports loaded, which replaces "
        "a lost rank at once.",
    )
    deadlines: DeadlinesConfig = DeadlinesConfig()
    grace_seconds: float = execution(
        120.0, "After a request to stop: time limit for the run to save a checkpoint and end.", gt=0
    )
    wait_for_ranks_seconds: float = execution(
        300.0, "Time limit of the wait for enough capacity for the minimum number of ranks.", ge=0
    )
    wait_for_head_seconds: float = execution(
        45.0,
        "Time limit of the wait for a cluster's head that does not answer. Below 60: after "
        "60 s (gcs_rpc_server_reconnect_timeout_s) Ray ends every process.",
        gt=0,
        lt=60,
    )
    node_usage_seconds: float = execution(
        30.0,
        "Interval at which each node of the ranks adds a line to nodes.jsonl: CPU, memory, GPUs; "
        "0 for never.",
        ge=0,
    )
    retry_exit_codes: tuple[ExitCode, ...] = execution(
        (75,),
        "Exit codes after which a submitted job is restarted automatically; 128 plus the signal's "
        "number if a signal killed the driver, such as 137 (SIGKILL) and 139 (SIGSEGV).",
    )
    retries: int = execution(
        3,
        "Maximum number of such restarts in a row without a further step of the run; 0 for never.",
        ge=0,
    )

    slurm: SlurmConfig = SlurmConfig()
    kubernetes: KubernetesConfig = KubernetesConfig()

    @field_validator("resources_per_rank")
    @classmethod
    def _no_reserved_names(cls, resources: dict[str, float]) -> dict[str, float]:
        for name in sorted(resources.keys() & OWN_FIELDS.keys()):
            raise ValueError(
                f"it has {name}, but a rank's {name} is set by {OWN_FIELDS[name]}: use that field"
            )
        return resources

    @property
    def resources_of_a_rank(self) -> dict[str, float]:
        """All resources that Ray reserves for a rank, by Ray's names."""
        own = {"CPU": self.cpus_per_rank, "GPU": float(self.gpus_per_rank)}
        return {name: n for name, n in own.items() if n} | self.resources_per_rank

    @property
    def max_ranks(self) -> int:
        return self.ranks if isinstance(self.ranks, int) else self.ranks.max

    @property
    def min_ranks(self) -> int:
        return self.ranks if isinstance(self.ranks, int) else self.ranks.min

    @property
    def least_cpus(self) -> float:
        """CPUs that the minimum number of ranks and the data workers reserve."""
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
