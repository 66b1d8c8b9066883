"""Manifests of a run on Kubernetes: a RayJob of KubeRay 1.7 and the files that its pods need.

    recipe ──▶ ConfigMap   the recipe's file, train.sh (the job's entry point), stop.sh (preStop)
           ──▶ RayJob      head and driver in one pod, ranks in the workers' pods

The manifests have never been used on a Kubernetes cluster. A test checks them against KubeRay's
schema and rules, and runs the two scripts separately.
"""

import hashlib
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import ray
import yaml

from cluster.config import ClusterConfig
from cluster.errors import EXIT_PREEMPTED, RecipeError
from cluster.launcher_config import KubernetesConfig
from cluster.launchers.registry import Launch, Launcher, check_encodable
from cluster.ray.embedded import EMBEDDED_OBJECT_STORE_BYTES
from cluster.recipe import Recipe, load_recipe, run_name
from data_pipeline.config.corpus import is_remote
from trainer.runs.run_url import is_run_url, run_url

MAX_NAME = 47  # maximum length of a RayJob's name; KubeRay derives longer names from it
FILES = "/etc/transloom"
TEMPORARY = "/tmp"
# Seconds for the overhead of the preStop hook. Kubernetes kills a pod after cluster.grace_seconds
# plus this margin.
MARGIN_SECONDS = 60
TTL_SECONDS_AFTER_FINISHED = 300  # keeps a finished job's pods for inspection
HERE = Path(__file__).parent

Manifest = dict[str, Any]


@dataclass(frozen=True)
class KubeRayLauncher(Launcher):
    """Launcher of RayJobs on Kubernetes.

    Attributes:
        name: the RayJob's name, as `job_name` returns it; None for the run's name.
    """

    submission = ("kubectl", "apply", "-f")

    name: str | None = None

    def launch(self, recipe_file: Path, overrides: Sequence[str], run: Path | None) -> Launch:
        recipe, known_as = load_recipe(recipe_file, overrides), run_name(recipe_file, overrides)
        folder = _in_pods(run or default_run(recipe, known_as))
        job = job_name(self.name or known_as)
        recipe_text = recipe_file.read_text(encoding="utf-8")
        documents = manifests(recipe, recipe_text, overrides, folder, job)
        check_encodable("\n".join(documents[0]["data"].values()))  # YAML would escape other bytes
        values = {"job": job, "run": folder, "manifests": documents}
        return Launch(f"the RayJob {job}", to_yaml(documents), values)


def _in_pods(run: PurePath) -> str:
    return run_url(run) if is_run_url(run) else str(PurePosixPath(run))


def manifests(
    recipe: Recipe, recipe_text: str, overrides: Sequence[str], run: str, name: str
) -> list[Manifest]:
    """Return the ConfigMap and the RayJob.

    Args:
        recipe: the recipe, with the overrides applied.
        recipe_text: the text of the recipe's file.
        run: the run's folder, as pods see it, or its URL.
        name: name of the RayJob; see `job_name`.

    Raises:
        RecipeError: the image is not set, or the run, the dataset or the extension folder is not on
            a volume.
    """
    kubernetes = recipe.cluster.kubernetes
    if kubernetes.image is None:
        raise RecipeError(
            "cluster.kubernetes.image is null, but pods need an image. Build one with "
            "deploy/Dockerfile, push it to a registry that the cluster can reach, and set "
            "cluster.kubernetes.image to its name"
        )
    if not is_run_url(run):
        _check_on_volume(kubernetes, run, "the run's folder", "--run", written=True)
    if not is_remote(recipe.data.dataset):
        _check_on_volume(kubernetes, recipe.data.dataset, "data.dataset", "data.dataset=")
    if recipe.extension_folder is not None:
        folder = recipe.extension_folder
        _check_on_volume(kubernetes, folder, "extension_folder", "extension_folder=")
    metadata: Manifest = {"name": name, "labels": _labels(kubernetes)}
    if kubernetes.namespace:
        metadata["namespace"] = kubernetes.namespace
    files = {
        "recipe.yaml": recipe_text,
        "train.sh": _script("pod_train.sh", recipe.cluster, overrides, run),
        "stop.sh": _script("pod_stop.sh", recipe.cluster, overrides, run),
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files},
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": metadata,
            "spec": _job(recipe.cluster, name),
        },
    ]


def to_yaml(documents: Sequence[Manifest]) -> str:
    """Return the documents as YAML for `kubectl apply -f`, with recipe and scripts verbatim."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, explicit_start=True, allow_unicode=True
    )


def default_run(recipe: Recipe, run_name: str) -> PurePosixPath:
    """Return the default folder of a run: runs/NAME on the first writable volume.

    Raises:
        RecipeError: no volume is writable.
    """
    for volume in recipe.cluster.kubernetes.volumes:
        if not volume.read_only:
            return PurePosixPath(volume.path) / "runs" / run_name
    raise RecipeError(
        "cluster.kubernetes.volumes has no writable volume for the run's folder. "
        "Add a volume with claim and path, such as {claim: shared, path: /shared}"
    )


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


def _job(cluster: ClusterConfig, name: str) -> Manifest:
    kubernetes = cluster.kubernetes
    token: Manifest = {"mode": "token"}
    if kubernetes.token_secret:
        token["secretName"] = kubernetes.token_secret
    pods = math.ceil(cluster.max_ranks / kubernetes.ranks_per_pod)
    start = {"object-store-memory": str(EMBEDDED_OBJECT_STORE_BYTES)}
    cpus = _cpus_of_pod(cluster, pods)
    grace = math.ceil(cluster.grace_seconds)
    drain = ["timeout", str(grace), "transloom", "deploy", "drain-node", "--seconds", str(grace)]
    return {
        "entrypoint": f"bash {FILES}/train.sh",
        "submissionMode": "K8sJobMode",
        "backoffLimit": kubernetes.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": TTL_SECONDS_AFTER_FINISHED,
        "rayClusterSpec": {
            "rayVersion": ray.__version__,
            "authOptions": token,
            "headGroupSpec": {
                # no CPUs for ranks, which would compete with the driver
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0", **start},
                "template": _pod(
                    cluster,
                    name,
                    container="ray-head",
                    resources=_resources(1, kubernetes.head_memory_gigabytes),
                    before_the_end=["bash", f"{FILES}/stop.sh"],
                ),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "ranks",
                    "replicas": pods,
                    "minReplicas": math.ceil(cluster.min_ranks / kubernetes.ranks_per_pod),
                    "maxReplicas": pods,
                    "rayStartParams": {"num-cpus": str(cpus), **start},
                    "template": _pod(
                        cluster,
                        name,
                        container="ray-worker",
                        resources=_resources(
                            cpus,
                            kubernetes.memory_gigabytes,
                            kubernetes.ranks_per_pod * cluster.gpus_per_rank,
                        ),
                        before_the_end=drain,
                        selector=kubernetes.node_selector,
                    ),
                }
            ],
        },
        "submitterPodTemplate": _pod(
            cluster, name, container="ray-job-submitter", resources=_resources(1, 1.0)
        ),
    }


def _pod(
    cluster: ClusterConfig,
    name: str,
    *,
    container: str,
    resources: Manifest,
    before_the_end: Sequence[str] = (),
    selector: dict[str, str] | None = None,
) -> Manifest:
    """Return the template of a pod.

    Args:
        before_the_end: the preStop command. A pod that has one also mounts the run's files and the
            shared volumes.
        selector: labels that the pod's node must have.
    """
    kubernetes = cluster.kubernetes
    runs = bool(before_the_end)
    mounts, volumes = [{"name": "tmp", "mountPath": TEMPORARY}], [{"name": "tmp", "emptyDir": {}}]
    if runs:
        mounts.append({"name": "files", "mountPath": FILES})
        volumes.append({"name": "files", "configMap": {"name": name}})
        more_mounts, more_volumes = _shared_volumes(kubernetes)
        mounts, volumes = mounts + more_mounts, volumes + more_volumes
    variables = {"HOME": TEMPORARY, "RAY_worker_niceness": str(cluster.niceness)}
    main: Manifest = {
        "name": container,
        "image": kubernetes.image,
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "envFrom": [{"secretRef": {"name": n}} for n in kubernetes.environment_secrets],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
        "lifecycle": {"preStop": {"exec": {"command": list(before_the_end)}}} if runs else None,
    }
    user = kubernetes.user
    spec: Manifest = {
        "containers": [_without_none(main)],
        "volumes": volumes,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(cluster.grace_seconds) + MARGIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",  # default: all files, at each mount
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "serviceAccountName": kubernetes.service_account,
        "imagePullSecrets": [{"name": n} for n in kubernetes.image_pull_secrets],
        "nodeSelector": selector,
        "tolerations": [
            {
                key: value
                for key, value in {
                    "key": one.key,
                    "operator": one.operator,
                    "value": one.value,
                    "effect": one.effect,
                }.items()
                if value is not None
            }
            for one in kubernetes.tolerations
        ],
    }
    return {"metadata": {"labels": dict(kubernetes.labels)}, "spec": _without_none(spec)}


def _shared_volumes(kubernetes: KubernetesConfig) -> tuple[list[Manifest], list[Manifest]]:
    """Return mounts and volumes of the storage that all pods mount."""
    mounts, volumes = [], []
    for n, volume in enumerate(kubernetes.volumes):
        name = f"shared-{n}"
        mounts.append({"name": name, "mountPath": volume.path, "readOnly": volume.read_only})
        claim = {"claimName": volume.claim, "readOnly": volume.read_only}
        volumes.append({"name": name, "persistentVolumeClaim": claim})
    return mounts, volumes


def _resources(cpus: int, memory_gigabytes: float, gpus: int = 0) -> Manifest:
    amounts: Manifest = {"cpu": str(cpus), "memory": f"{math.ceil(memory_gigabytes * 1000)}M"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    return {"requests": amounts, "limits": amounts}


def _cpus_of_pod(cluster: ClusterConfig, pods: int) -> int:
    ranks = cluster.kubernetes.ranks_per_pod * cluster.cpus_per_rank
    workers = math.ceil(cluster.data_workers / pods) * cluster.cpus_per_data_worker
    return max(1, math.ceil(ranks + workers))


def _labels(kubernetes: KubernetesConfig) -> dict[str, str]:
    queue = {"kueue.x-k8s.io/queue-name": kubernetes.queue} if kubernetes.queue else {}
    return {**kubernetes.labels, **queue}


def _script(name: str, cluster: ClusterConfig, overrides: Sequence[str], run: str) -> str:
    """Return one of the pods' scripts, preceded by its settings."""
    train = ["transloom", "train", f"{FILES}/recipe.yaml", *overrides]
    train += ["--address", "auto", "--run", run]
    settings = [
        f"train=({shlex.join(train)})",
        f"run={shlex.quote(run)}",
        f"grace_seconds={math.ceil(cluster.grace_seconds)}",
        f"preempted={EXIT_PREEMPTED}",
    ]
    return "\n".join([*settings, (HERE / name).read_text(encoding="utf-8")])


def _check_on_volume(
    kubernetes: KubernetesConfig, path: str, what: str, option: str, written: bool = False
) -> None:
    around = [v for v in kubernetes.volumes if PurePosixPath(path).is_relative_to(v.path)]
    if not around:
        volumes = " and ".join(volume.path for volume in kubernetes.volumes) or "none"
        raise RecipeError(
            f"{what} is {path}, which is on no volume of cluster.kubernetes.volumes ({volumes}), "
            f"so pods would not see it. Use {option} with a path below one of these volumes"
        )
    innermost = max(around, key=lambda volume: len(volume.path))
    if written and innermost.read_only:
        raise RecipeError(
            f"{what} is {path}, on the volume {innermost.claim} at {innermost.path}, which is "
            f"read_only. Use {option} with a path below a writable volume"
        )


def _without_none(values: Manifest) -> Manifest:
    return {key: value for key, value in values.items() if value not in (None, [], {}, "")}


# Texts that every YAML reader restores exactly from a literal block.
_LITERAL = re.compile(r"[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]*")
# Texts that need no quotes. Others are quoted, because some readers parse texts such as `1e3` and
# `y` as a number or boolean, although PyYAML does not.
_PLAIN = re.compile(r"[A-Za-z/][\w./:-]+", re.ASCII)


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes texts of several lines as literal blocks, and uses no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def analyze_scalar(self, scalar: str) -> Any:
        """Allow literal blocks also for texts with tabs, or with spaces at the end of lines."""
        analysis = super().analyze_scalar(scalar)
        analysis.allow_block = analysis.multiline and bool(_LITERAL.fullmatch(scalar))
        return analysis


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text)
    style = "|" if "\n" in text else None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
