"""RayJob of KubeRay 1.7 that trains a run: a template, filled with the values of a recipe.

    recipe ──▶ rayjob.yaml ──▶ ConfigMap   the recipe's file, and the scripts of the pods: train.sh
                                           (entry point), stop.sh and drain.sh (preStop)
                           ──▶ RayJob      head and driver in one pod, ranks in the workers' pods

The result has never been used on a Kubernetes cluster. A test checks it against KubeRay's schema
and rules, and runs the scripts separately.
"""

import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from cluster.errors import EXIT_PREEMPTED, RecipeError
from cluster.launchers.registry import Launch, Launcher, check_encodable
from cluster.ray.embedded import EMBEDDED_OBJECT_STORE_BYTES
from cluster.recipe import load_recipe, run_name
from data_pipeline.config.corpus import is_remote
from foundation.wording import join_items
from run_store.run_url import is_run_url, run_url

TEMPLATE = Path(__file__).with_name("rayjob.yaml")
RUNS = Path("/shared/runs")  # default parent of runs, on the volume that the template mounts
MAX_NAME = 47  # maximum length of a RayJob's name; KubeRay derives longer names from it
# Seconds for the overhead of the preStop hook. Kubernetes kills a pod after cluster.grace_seconds
# plus this margin.
MARGIN_SECONDS = 60
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}")
# Characters that JSON allows unescaped, but that YAML forbids or reads as line ends.
_NOT_IN_YAML = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class KubernetesLauncher(Launcher):
    """Launcher of RayJobs on Kubernetes."""

    submission = ("kubectl", "apply", "-f")

    template: Path = TEMPLATE

    def launch(self, recipe_file: Path, overrides: Sequence[str], run: Path | None) -> Launch:
        name = run_name(recipe_file, overrides)
        folder = str(run_url(run)) if run and is_run_url(run) else str(run or RUNS / name)
        job = job_name(name)
        values = placeholders(recipe_file, overrides, folder, job)
        text = fill(self.template.read_text(encoding="utf-8"), values)
        check_encodable(text)
        return Launch(f"the RayJob {job}", text, {"job": job, "run": folder})


def fill(template: str, values: Mapping[str, object]) -> str:
    """Replace the placeholders of a template by JSON scalars; leave out lines whose value is None.

    Raises:
        RecipeError: a placeholder has no value.
    """
    if unknown := set(_PLACEHOLDER.findall(template)) - values.keys():
        raise RecipeError(
            f"nothing fills {join_items(sorted(unknown))} in double braces: write a value into the "
            f"template, or one of the names {join_items(values)}"
        )
    return "".join(
        _PLACEHOLDER.sub(lambda match: _scalar(values[match[1]]), line)
        for line in template.splitlines(keepends=True)
        if all(values[name] is not None for name in _PLACEHOLDER.findall(line))
    )


def placeholders(
    recipe_file: Path, overrides: Sequence[str], run: str, name: str
) -> dict[str, object]:
    """Return the values of the template's placeholders.

    Args:
        run: the run's folder, as pods see it, or its URL.
        name: name of the RayJob.

    Raises:
        RecipeError: the image is not set, or pods could not find a folder.
    """
    recipe = load_recipe(recipe_file, overrides)
    cluster, kubernetes = recipe.cluster, recipe.cluster.kubernetes
    if kubernetes.image is None:
        raise RecipeError(
            "cluster.kubernetes.image is null: build an image with deploy/Dockerfile, push it to a "
            "registry that the cluster can reach, and set the field to its name"
        )
    folders = {"--run": run, "data.dataset": recipe.data.dataset}
    for what, folder in {**folders, "extension_folder": recipe.extension_folder}.items():
        if folder and not is_remote(folder) and not folder.startswith("/"):
            raise RecipeError(
                f"{what} is {folder}, which pods would not find: name a folder on a volume of the "
                "template, such as /shared/…, or a URL"
            )
    pods = math.ceil(cluster.max_ranks / kubernetes.ranks_per_pod)
    ranks = kubernetes.ranks_per_pod * cluster.cpus_per_rank
    data = math.ceil(cluster.data_workers / pods) * cluster.cpus_per_data_worker
    grace = math.ceil(cluster.grace_seconds)
    command = ["transloom", "train", "/etc/transloom/recipe.yaml", *overrides]
    train = shlex.join([*command, "--address", "auto", "--run", run])
    return {
        "name": name,
        "image": kubernetes.image,
        "recipe": recipe_file.read_text(encoding="utf-8"),
        "train": _script("pod_train.sh", train=f"({train})", preempted=str(EXIT_PREEMPTED)),
        "stop": _script("pod_stop.sh", run=shlex.quote(run), grace_seconds=str(grace)),
        "drain": _script("pod_drain.sh", grace_seconds=str(grace)),
        "queue": kubernetes.queue,
        "priority_class": kubernetes.priority_class,
        "workers": pods,
        "min_workers": math.ceil(cluster.min_ranks / kubernetes.ranks_per_pod),
        "cpus": str(max(1, math.ceil(ranks + data))),
        "gpus": kubernetes.ranks_per_pod * cluster.gpus_per_rank or None,
        "memory": f"{math.ceil(kubernetes.memory_gigabytes * 1000)}M",
        "niceness": str(cluster.niceness),
        "termination_seconds": grace + MARGIN_SECONDS,
        "object_store_bytes": str(EMBEDDED_OBJECT_STORE_BYTES),
        "ray_version": ray.__version__,
    }


def job_name(run_name: str) -> str:
    """Return a name for the job of a run: a DNS label (RFC 1035) of at most 47 characters.

    A longer name is cut and ends in a hash, so that names stay distinct.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"run-{plain}".strip("-")
    if len(plain) <= MAX_NAME:
        return plain
    digest = hashlib.blake2b(run_name.encode(), digest_size=4).hexdigest()
    return f"{plain[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def _scalar(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _script(name: str, **settings: str) -> str:
    """Return one of the pods' scripts after its settings, whose values are valid shell words."""
    lines = [f"{setting}={value}\n" for setting, value in settings.items()]
    return "".join(lines) + TEMPLATE.with_name(name).read_text(encoding="utf-8")
