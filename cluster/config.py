"""The cluster section of a recipe: placement of a run's ranks and data workers."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cluster.launcher_config import KubernetesConfig, SlurmConfig
from foundation.location import Location
from foundation.section import Section, execution
from run_store.start import MAX_WEIGHT

RankCount = Annotated[int, Field(gt=0)]
ExitCode = Annotated[int, Field(gt=0, le=255)]
Placement = Literal["pack", "spread"]
NodeCheck = Literal["auto", "off", "quick", "full"]
Amount = Annotated[float, Field(gt=0)]
# Ray resources that have separate recipe fields; `resources_per_rank` must not contain them.
OWN_FIELDS = {"CPU": "cluster.cpus_per_rank", "GPU": "cluster.gpus_per_rank"}


class RankRange(Section):
    """The smallest and the largest number of ranks of an elastic run."""

    min: RankCount
    max: RankCount

    @model_validator(mode="after")
    def _in_order(self) -> "RankRange":
        if self.min > self.max:
            raise ValueError(
                f"min is {self.min}, but must not exceed max, which is {self.max}. Swap the values"
            )
        return self


class DeadlinesConfig(Section):
    """Deadlines of a rank's phases, in seconds; a rank that exceeds its deadline is hung."""

    start_seconds: float = execution(
        900.0, "Time limit for joining the group, building the engine and loading the state.", gt=0
    )
    step_seconds: float = execution(
        600.0,
        "Time limit for waiting for the data of a step, and for computing the step. "
        "`adaptive_step` shortens the limit for computing.",
        gt=0,
    )
    adaptive_step: bool = execution(
        True,
        "true: consider a rank hung when it computes a step for 10 times the median of the last "
        "50 steps, and for at least 30 s. false: use step_seconds, for steps of very different "
        "length.",
    )
    validation_seconds: float = execution(
        3600.0, "Time limit for one validation, including decoding.", gt=0
    )
    save_seconds: float = execution(
        1800.0,
        "Time limit for copying the state, including the wait for the previous write.",
        gt=0,
    )
    answer_seconds: float = execution(
        30.0, "Time limit for any answer of a rank's process, in all phases.", gt=0
    )

    @property
    def longest_seconds(self) -> float:
        return max(self.model_dump(exclude={"adaptive_step"}).values())


class ClusterConfig(Section):
    """Placement of ranks and data workers.

    These settings do not change the training data. They change the loss curve only by rounding.
    """

    address: Location | None = execution(
        None,
        "Ray cluster to join: HOST:PORT, or `auto` for the cluster on this host; "
        "null starts Ray on this host for the duration of the run.",
    )
    ranks: RankCount | RankRange = execution(
        2,
        "Number of training processes, at most micro_batches_per_step. With {min, max}, the number "
        "follows the cluster's capacity: it falls after a loss and rises when capacity returns.",
    )
    cpus_per_rank: float = execution(
        1.0,
        "CPUs reserved for a rank, and number of its torch threads (rounded down, at least 1). "
        "Below 1, ranks share a CPU.",
        gt=0,
    )
    niceness: int = execution(
        0,
        "Niceness of ranks and data workers, added to the driver's niceness. If the run joins a "
        "cluster, RAY_worker_niceness (default 15) in the environment of each node's `ray start` "
        "applies instead.",
        ge=0,
        le=19,
    )
    gpus_per_rank: int = execution(
        0, "GPUs reserved for a rank: 1 trains with CUDA, 0 on the CPU.", ge=0, le=1
    )
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
    data_workers: int = execution(
        1, "Number of processes that read shards and assemble micro-batches.", gt=0
    )
    cpus_per_data_worker: float = execution(
        0.0, "CPUs reserved for a data worker, which uses little CPU time.", ge=0
    )
    steps_ahead: int = execution(
        4, "Number of future steps whose data a rank requests in advance.", gt=0
    )
    data_memory_megabytes: int = execution(
        512,
        "Memory limit for the windows that a data worker caches, and a separate, equal limit for "
        "the data that a rank prefetches.",
        gt=0,
    )

    warm_spares: bool = execution(
        True,
        "Keep a spare process for every rank, with all imports loaded, so that it can replace "
        "a lost rank immediately.",
    )
    deadlines: DeadlinesConfig = DeadlinesConfig()
    grace_seconds: float = execution(
        120.0, "Time limit for a run to save a checkpoint and end after a stop request.", gt=0
    )
    wait_for_ranks_seconds: float = execution(
        300.0, "Maximum time to wait for capacity for the minimum number of ranks.", ge=0
    )
    wait_for_head_seconds: float = execution(
        45.0,
        "Maximum time to wait for a cluster's head that does not answer; must be below 60, because "
        "Ray ends every process after 60 s (gcs_rpc_server_reconnect_timeout_s).",
        gt=0,
        lt=60,
    )
    node_usage_seconds: float = execution(
        30.0,
        "Interval at which each node of the ranks adds a line to nodes.jsonl: CPU, memory, GPUs; "
        "0 disables it.",
        ge=0,
    )
    node_check: NodeCheck = execution(
        "auto",
        "Check of each node before ranks start on it: quick takes a second or two, full up to 20 "
        "s. A node that fails gets no ranks. auto is quick on a cluster, and off for the Ray that "
        "this command starts.",
    )
    retry_exit_codes: tuple[ExitCode, ...] = execution(
        (75,),
        "Exit codes after which a submitted job is restarted automatically. A driver killed by a "
        "signal has 128 plus the signal's number, such as 137 (SIGKILL) and 139 (SIGSEGV).",
    )
    retries: int = execution(
        3,
        "Maximum number of consecutive automatic restarts of a submitted job without a new step; 0 "
        "disables restarts.",
        ge=0,
    )

    share: Literal["fair", "fixed"] = execution(
        "fair",
        "fair: a submitted job gives ranks to other jobs and takes free ones, within "
        "cluster.ranks, as its share of the cluster changes. fixed: no other job takes ranks from "
        "it.",
    )
    share_weight: float = execution(
        1.0,
        "Weight of the job's owner among owners with jobs of the same priority; the largest weight "
        "of an owner's jobs counts.",
        gt=0,
        le=MAX_WEIGHT,
    )
    rebalance_seconds: float = execution(
        300.0,
        "Seconds for which another job must have less than its share before this one gives ranks "
        "to it. A job that waits to begin gets them at once.",
        ge=0,
    )
    price_per_rank_hour: float | None = execution(
        None, "Price of a rank for an hour, in any currency; null shows no cost.", ge=0
    )

    slurm: SlurmConfig = SlurmConfig()
    kubernetes: KubernetesConfig = KubernetesConfig()

    @field_validator("resources_per_rank")
    @classmethod
    def _no_reserved_names(cls, resources: dict[str, float]) -> dict[str, float]:
        for name in sorted(resources.keys() & OWN_FIELDS.keys()):
            raise ValueError(
                f"it has {name}, but {OWN_FIELDS[name]} sets a rank's {name}. Use that field"
            )
        return resources

    @field_validator("node_check", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads off as false

    @property
    def node_check_level(self) -> Literal["quick", "full"] | None:
        """The level of the node check, or None without a check."""
        if self.node_check == "auto":
            return None if self.address is None else "quick"
        return None if self.node_check == "off" else self.node_check

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The device of a rank."""
        return "cuda" if self.gpus_per_rank else "cpu"

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
