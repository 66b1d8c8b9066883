"""The cluster section of a recipe: where a run's ranks and data workers run."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cluster.launcher_config import KubernetesConfig, SlurmConfig
from foundation.location import Location
from foundation.section import Section, execution

RankCount = Annotated[int, Field(gt=0)]
ExitCode = Annotated[int, Field(gt=0, le=255)]
Placement = Literal["pack", "spread"]
Amount = Annotated[float, Field(gt=0)]
# Resources that a rank reserves by fields of their own.
OWN_FIELDS = {"CPU": "cluster.cpus_per_rank", "GPU": "cluster.gpus_per_rank"}


class RankRange(Section):
    """The least and the largest number of ranks of a run that shrinks and grows."""

    min: RankCount
    max: RankCount

    @model_validator(mode="after")
    def _in_order(self) -> "RankRange":
        if self.min > self.max:
            raise ValueError(f"ranks has min {self.min} and max {self.max}: swap them")
        return self


class DeadlinesConfig(Section):
    """The seconds without progress after which a rank is taken for hung, by phase."""

    start_seconds: float = execution(
        900.0, "Joining the group, building the engine, loading the state.", gt=0
    )
    step_seconds: float = execution(
        600.0,
        "Waiting for the data of a step; and computing it, for which `adaptive_step` allows less.",
        gt=0,
    )
    adaptive_step: bool = execution(
        True,
        "Take a rank for hung when it computes one step for 10 times the median of the last 50, "
        "and for at least 30 s. false: step_seconds, for steps whose durations vary a lot.",
    )
    validation_seconds: float = execution(3600.0, "One validation, with decoding.", gt=0)
    save_seconds: float = execution(
        1800.0, "Copying the state, with waiting for the write before.", gt=0
    )
    answer_seconds: float = execution(
        30.0, "Any answer of the process at all, in whatever phase.", gt=0
    )

    @property
    def longest_seconds(self) -> float:
        return max(self.model_dump(exclude={"adaptive_step"}).values())


class ClusterConfig(Section):
    """Where ranks and data workers run. It changes no data, and the curve only by rounding."""

    address: Location | None = execution(
        None,
        "Ray cluster to join: HOST:PORT, or `auto` for the one on this host; "
        "null starts Ray here for the time of the run.",
    )
    ranks: RankCount | RankRange = execution(
        2,
        "Processes that train, at most micro_batches_per_step; or {min, max}: as "
        "many as the cluster offers, fewer after a loss, more when it has room again.",
    )
    cpus_per_rank: float = execution(
        1.0,
        "CPUs reserved for a rank; torch computes with as many threads, at least "
        "one. Below 1, ranks share a CPU.",
        gt=0,
    )
    niceness: int = execution(
        0,
        "Of ranks and data workers, on top of the driver's own, where Ray is "
        "started here. On a cluster that is joined RAY_worker_niceness counts, in the "
        "environment of each node's `ray start`; it is 15 by default.",
        ge=0,
        le=19,
    )
    gpus_per_rank: int = execution(0, "1 trains on CUDA, 0 on the CPU.", ge=0, le=1)
    resources_per_rank: dict[str, Amount] = execution(
        {},
        "Resources of other names that a rank reserves, such as {rack_a: 1}, as given in "
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
        "spread puts equally many on each, so that each has more of its node's memory and caches.",
    )
    data_workers: int = execution(1, "Processes that read shards and assemble micro-batches.", gt=0)
    cpus_per_data_worker: float = execution(
        0.0, "CPUs reserved for a data worker; it needs few.", ge=0
    )
    steps_ahead: int = execution(4, "Steps whose data a rank asks for before it needs them.", gt=0)
    data_memory_megabytes: int = execution(
        512,
        "Bounds the windows that a data worker keeps, and what a rank asks for ahead of time.",
        gt=0,
    )

    warm_spares: bool = execution(
        True,
        "Keep a process with everything imported for every rank, which takes its "
        "place at once if it is lost.",
    )
    deadlines: DeadlinesConfig = DeadlinesConfig()
    grace_seconds: float = execution(
        120.0, "After a request to stop: how long the run may take to leave a checkpoint.", gt=0
    )
    wait_for_ranks_seconds: float = execution(
        300.0, "How long to wait for room for the least number of ranks.", ge=0
    )
    wait_for_head_seconds: float = execution(
        45.0,
        "How long to wait for a head of the cluster that does not answer. Below "
        "60: after that (gcs_rpc_server_reconnect_timeout_s) Ray ends every process.",
        gt=0,
        lt=60,
    )
    node_usage_seconds: float = execution(
        30.0,
        "How often each node of the ranks adds a line to nodes.jsonl: CPU, memory, GPUs; 0 for "
        "never.",
        ge=0,
    )
    retry_exit_codes: tuple[ExitCode, ...] = execution(
        (75,),
        "Of a submitted job: exit codes after which it is restarted automatically; 128 plus a "
        "signal's number where one killed the driver, such as 137 (SIGKILL) and 139 (SIGSEGV).",
    )
    retries: int = execution(
        3, "How often in a row that happens without a further step of the run; 0 for never.", ge=0
    )

    slurm: SlurmConfig = SlurmConfig()
    kubernetes: KubernetesConfig = KubernetesConfig()

    @field_validator("resources_per_rank")
    @classmethod
    def _no_field_of_their_own(cls, resources: dict[str, float]) -> dict[str, float]:
        for name in sorted(resources.keys() & OWN_FIELDS.keys()):
            raise ValueError(
                f"it has {name}, of which a rank's amount is {OWN_FIELDS[name]}: set that"
            )
        return resources

    @property
    def resources_of_a_rank(self) -> dict[str, float]:
        """All that Ray reserves for a rank, by Ray's names."""
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
        """CPUs reserved by the least number of ranks and by the data workers."""
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
