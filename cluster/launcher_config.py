"""Settings for Slurm and Kubernetes, in the cluster section of a recipe.

Values that can be computed from other fields of the cluster section, such as the number of GPUs,
have no field here.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from foundation.section import Section, execution
from foundation.wording import join_items

# A line break in a value would start a new line of the generated Slurm script.
OneLine = Annotated[str, Field(pattern=r"^[^\r\n]+$")]
SbatchOption = Annotated[str, Field(pattern=r"^--?[A-Za-z][^\r\n]*$")]
WORD = r"^[^\s]+$"
# Names of Kubernetes objects (RFC 1123).
DNS_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
# Defaults of removed Kubernetes fields, which the stored recipes of older runs may contain.
_FORMER = {"head_memory_gigabytes": 4.0, "retries": 3, "user": 1000}


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
    qos: str | None = execution(
        None,
        "Quality of service (QOS) of the job, which has a priority; null: Slurm's default.",
        pattern=WORD,
    )
    nice: int = execution(
        0,
        "Adjustment of the job's priority: the higher, the later it starts. Only operators may "
        "set a negative one.",
        ge=-2_147_483_645,
        le=2_147_483_645,
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


class KubernetesConfig(Section):
    """Values of the RayJob of `transloom deploy kubernetes`; its template has everything else."""

    image: str | None = execution(
        None, "Container image of the pods, built with deploy/Dockerfile.", pattern=WORD
    )
    queue: str | None = execution(
        None, "Kueue's local queue in which the job waits for capacity.", pattern=DNS_NAME
    )
    priority_class: str | None = execution(
        None, "Priority class of all pods; null: the cluster's default.", pattern=DNS_NAME
    )
    ranks_per_pod: int = execution(1, "Ranks per worker pod.", gt=0)
    memory_gigabytes: float = execution(
        8.0, "Memory of a worker pod, including Ray's shared memory.", gt=1
    )

    @model_validator(mode="before")
    @classmethod
    def _other_fields_are_lines_of_the_template(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        others = values.keys() - cls.model_fields.keys()
        if given := sorted(n for n in others if values[n] and values[n] != _FORMER.get(n)):
            raise ValueError(
                f"{join_items(given)} cannot be set in a recipe: write volumes, secrets, labels, "
                "tolerations and other lines of the RayJob into a copy of "
                "cluster/launchers/rayjob.yaml, and name it by `transloom deploy kubernetes "
                f"--template FILE`. A recipe sets {join_items(cls.model_fields)}"
            )
        return {name: value for name, value in values.items() if name not in others}
