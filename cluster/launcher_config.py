"""Settings for Slurm and Kubernetes, in the cluster section of a recipe.

Values that can be computed from other fields of the cluster section, such as the number of GPUs,
have no field here.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from foundation.section import REQUIRED, Section, execution

# A line break in a value would start a new line of the generated Slurm script.
OneLine = Annotated[str, Field(pattern=r"^[^\r\n]+$")]
SbatchOption = Annotated[str, Field(pattern=r"^--?[A-Za-z][^\r\n]*$")]
WORD = r"^[^\s]+$"
# Names of Kubernetes objects (RFC 1123).
DNS_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DnsName = Annotated[str, Field(pattern=DNS_NAME)]


class SlurmConfig(Section):
    """Options of `transloom deploy slurm`."""

    nodes: int = execution(
        1, "Number of nodes over which a job's ranks and data workers are distributed.", gt=0
    )
    partition: str | None = execution(
        None, "Partition of the job; null: Slurm's default.", pattern=WORD
    )
    account: str | None = execution(
        None, "Account that is charged for the job; null: Slurm's default.", pattern=WORD
    )
    time_limit_minutes: int | None = execution(
        None,
        "Time limit of the job. Shortly before the limit, the job saves a checkpoint and is "
        "requeued. null: the partition's DefaultTime or, without one, its MaxTime.",
        gt=0,
    )
    cpus_per_node: int | None = execution(
        None, "CPUs requested per node; null: what its ranks and data workers reserve.", gt=0
    )
    options: tuple[SbatchOption, ...] = execution(
        (),
        "Additional options of sbatch, such as --mem=64G or --constraint=a100. Options that the "
        "job sets itself, such as --time and --signal, are refused.",
    )
    setup: tuple[OneLine, ...] = execution(
        (), "Lines of bash that run first in the job, such as `module load cuda`."
    )


class VolumeConfig(Section):
    """Storage that all pods mount."""

    claim: str = execution(
        REQUIRED, "PersistentVolumeClaim that several nodes may mount.", pattern=DNS_NAME
    )
    path: str = execution(REQUIRED, "Mount path in all pods.", pattern=r"^/[^\r\n]*[^/\r\n]$")
    read_only: bool = execution(False, "Mount read-only, for example for a dataset.")


class TolerationConfig(Section):
    """A node taint that pods tolerate."""

    key: str | None = execution(None, "The taint's key; null: any.")
    operator: Literal["Exists", "Equal"] = execution(
        "Exists", "Equal requires `value`; Exists accepts any."
    )
    value: str | None = execution(None, "The taint's value, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = execution(
        None, "The taint's effect; null: any."
    )


class KubernetesConfig(Section):
    """Options of `transloom deploy kuberay`, which writes the RayJob."""

    image: str | None = execution(
        None, "Container image of the pods, built with deploy/Dockerfile.", pattern=r"^[^\s]+$"
    )
    namespace: str | None = execution(
        None, "Namespace of the RayJob; null: kubectl's.", pattern=DNS_NAME
    )
    volumes: tuple[VolumeConfig, ...] = execution(
        (), "Storage with the run's folder and the dataset, at the same path in all pods."
    )
    token_secret: str | None = execution(
        None,
        "Secret whose key auth_token is Ray's token; null: KubeRay creates one.",
        pattern=DNS_NAME,
    )
    environment_secrets: tuple[DnsName, ...] = execution(
        (), "Secrets whose keys become environment variables in all pods, such as WANDB_API_KEY."
    )
    image_pull_secrets: tuple[DnsName, ...] = execution((), "Secrets for the image's registry.")
    service_account: str | None = execution(
        None, "Service account of all pods; null: the namespace's default.", pattern=DNS_NAME
    )
    queue: str | None = execution(
        None, "Kueue's local queue in which the job waits for capacity.", pattern=DNS_NAME
    )
    labels: dict[str, str] = execution({}, "Labels of the RayJob and its pods.")
    node_selector: dict[str, str] = execution({}, "Labels that the ranks' nodes must have.")
    tolerations: tuple[TolerationConfig, ...] = execution((), "Taints that pods tolerate.")
    ranks_per_pod: int = execution(1, "Ranks per worker pod.", gt=0)
    memory_gigabytes: float = execution(
        8.0, "Memory of a worker pod, which runs ranks, including Ray's shared memory.", gt=1
    )
    head_memory_gigabytes: float = execution(
        4.0, "Memory of the head pod, which runs Ray's head and the driver.", gt=1
    )
    retries: int = execution(
        3, "Maximum number of retries of a failed job, each on a new cluster (backoffLimit).", ge=0
    )
    user: int = execution(1000, "User and group ID of all processes; 0 (root) is refused.", gt=0)

    @field_validator("volumes")
    @classmethod
    def _mount_paths_are_distinct(
        cls, volumes: tuple[VolumeConfig, ...]
    ) -> tuple[VolumeConfig, ...]:
        paths = [volume.path for volume in volumes]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"two volumes are at {path}: give each volume another path")
        return volumes
