"""What Slurm and Kubernetes are told of a run, beside the rest of the recipe's cluster section.

Everything that both can derive from that, such as CPUs and GPUs, is not repeated here.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from foundation.section import REQUIRED, Section, execution

# In a script a value with a line end would be a line of its own.
OneLine = Annotated[str, Field(pattern=r"^[^\r\n]+$")]
SbatchOption = Annotated[str, Field(pattern=r"^--?[A-Za-z][^\r\n]*$")]
WORD = r"^[^\s]+$"
# Names of Kubernetes's objects (RFC 1123).
DNS_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DnsName = Annotated[str, Field(pattern=DNS_NAME)]


class SlurmConfig(Section):
    """What `transloom deploy slurm` asks Slurm for."""

    nodes: int = execution(1, "Nodes of a job, over which ranks and data workers spread.", gt=0)
    partition: str | None = execution(
        None, "Where the job waits; null: Slurm's default.", pattern=WORD
    )
    account: str | None = execution(
        None, "Whose share the job takes; null: Slurm's default.", pattern=WORD
    )
    time_limit_minutes: int | None = execution(
        None,
        "After so long the job leaves a checkpoint and goes back to the queue; null: the "
        "partition's limit.",
        gt=0,
    )
    cpus_per_node: int | None = execution(
        None, "null: as many as the ranks and data workers of a node reserve.", gt=0
    )
    options: tuple[SbatchOption, ...] = execution(
        (), "More options of sbatch, such as --mem=64G or --constraint=a100."
    )
    setup: tuple[OneLine, ...] = execution(
        (), "Lines of bash that run first in the job, such as `module load cuda`."
    )


class VolumeConfig(Section):
    """Storage that all pods see."""

    claim: str = execution(
        REQUIRED, "A PersistentVolumeClaim that several nodes may mount.", pattern=DNS_NAME
    )
    path: str = execution(REQUIRED, "Where pods have it.", pattern=r"^/[^\r\n]*[^/\r\n]$")
    read_only: bool = execution(False, "As for a dataset that nobody should change.")


class TolerationConfig(Section):
    """A taint of nodes that pods put up with."""

    key: str | None = execution(None, "The taint's key; null: any.")
    operator: Literal["Exists", "Equal"] = execution("Exists", "Equal compares the value.")
    value: str | None = execution(None, "The taint's value, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = execution(
        None, "The taint's effect; null: any."
    )


class KubernetesConfig(Section):
    """What `transloom deploy kuberay` writes into the RayJob."""

    image: str | None = execution(
        None, "What pods run, made with deploy/Dockerfile.", pattern=r"^[^\s]+$"
    )
    namespace: str | None = execution(
        None, "Where the RayJob is made; null: that of kubectl.", pattern=DNS_NAME
    )
    volumes: tuple[VolumeConfig, ...] = execution(
        (), "Storage with the run's folder and the dataset, at the same path in all pods."
    )
    token_secret: str | None = execution(
        None,
        "Secret whose key auth_token is Ray's token; null: KubeRay makes one.",
        pattern=DNS_NAME,
    )
    environment_secrets: tuple[DnsName, ...] = execution(
        (), "Secrets whose keys become variables in all pods, such as WANDB_API_KEY."
    )
    image_pull_secrets: tuple[DnsName, ...] = execution((), "Secrets of the image's registry.")
    service_account: str | None = execution(
        None, "Of all pods; null: the namespace's default.", pattern=DNS_NAME
    )
    queue: str | None = execution(
        None, "Kueue's local queue in which the job waits for room.", pattern=DNS_NAME
    )
    labels: dict[str, str] = execution({}, "Of the RayJob and its pods.")
    node_selector: dict[str, str] = execution({}, "Labels that nodes of ranks must have.")
    tolerations: tuple[TolerationConfig, ...] = execution((), "Taints that pods put up with.")
    ranks_per_pod: int = execution(1, "Ranks in a pod of the workers.", gt=0)
    memory_gigabytes: float = execution(
        8.0, "Of a pod of ranks, Ray's shared memory included.", gt=1
    )
    head_memory_gigabytes: float = execution(4.0, "Of the pod of Ray's head and the driver.", gt=1)
    retries: int = execution(
        3, "How often KubeRay starts a job that has failed on a new cluster (backoffLimit).", ge=0
    )
    user: int = execution(1000, "User and group of all processes; 0 is refused.", gt=0)

    @field_validator("volumes")
    @classmethod
    def _mount_paths_are_distinct(
        cls, volumes: tuple[VolumeConfig, ...]
    ) -> tuple[VolumeConfig, ...]:
        paths = [volume.path for volume in volumes]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"two volumes are at {path}: give each a path of its own")
        return volumes
