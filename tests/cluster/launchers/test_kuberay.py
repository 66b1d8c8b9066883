"""The RayJob of a run, against KubeRay's schema and rules; there was no Kubernetes to try it on."""

import copy
import json
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.recipes import tiny_values

from cluster.errors import RecipeError
from cluster.launchers import kuberay

SCHEMA = Path(__file__).resolve().parents[2] / "fixtures" / "kuberay" / "rayjob-v1.schema.json"
KUBERNETES = {
    "image": "registry.example/transloom:cpu",
    "namespace": "mt",
    "volumes": [
        {"claim": "corpora", "path": "/shared/corpora", "read_only": True},
        {"claim": "shared", "path": "/shared"},
    ],
    "token_secret": "ray-token",
    "environment_secrets": ["wandb"],
    "image_pull_secrets": ["registry"],
    "service_account": "trainer",
    "queue": "nightly",
    "labels": {"team": "mt"},
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    "ranks_per_pod": 2,
    "memory_gigabytes": 24.5,
    "retries": 5,
    "user": 1234,
}


@pytest.fixture
def recipe_file(tmp_path):
    values = tiny_values(Path("/shared/corpora/tiny"))
    values["cluster"] |= {"ranks": 5, "gpus_per_rank": 1, "kubernetes": KUBERNETES}
    values["cluster"] |= {"grace_seconds": 300, "cpus_per_rank": 3, "niceness": 1}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def documents(transloom, recipe_file, *arguments):
    printed = transloom("deploy", "kuberay", recipe_file, *arguments)
    assert printed.exit_code == 0, printed.output
    return list(yaml.safe_load_all(printed.output))


def closed(schema):
    """As the API server takes the schema: no field that is not named, and int-or-string."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        schema["type"] = ["integer", "string"]
    free = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not free:
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.fixture(scope="module")
def validator():
    schema = closed(json.loads(SCHEMA.read_text()))
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft7Validator(schema)


def ruled(schema, manifest, place=""):
    """The places of a manifest for which the schema has CEL rules."""
    if "x-kubernetes-validations" in schema:
        yield place
    if isinstance(manifest, dict):
        for name, value in manifest.items():
            if name in schema.get("properties", {}):
                yield from ruled(schema["properties"][name], value, f"{place}.{name}")
    elif isinstance(manifest, list):
        for item in manifest:
            yield from ruled(schema.get("items", {}), item, f"{place}[]")


def test_the_schema_and_its_rules_take_the_manifest(transloom, recipe_file, validator):
    files, job = documents(transloom, recipe_file)
    assert [error.message for error in validator.iter_errors(job)] == []
    # Rules (CEL) are about deletionStrategy, managedBy and backend, which it does without.
    schema = json.loads(SCHEMA.read_text())
    assert list(ruled(schema, job)) == []
    strategy = {"spec": {"deletionStrategy": {}, "managedBy": "x"}}
    assert list(ruled(schema, strategy)) == [".spec.deletionStrategy", ".spec.managedBy"]
    assert files["kind"] == "ConfigMap"
    assert all(isinstance(text, str) for text in files["data"].values())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["spec", "entryPoint"], "x"),
        (["spec", "backoffLimit"], "5"),
        (["spec", "rayClusterSpec", "authOptions", "mode"], "tokens"),
        (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
        (["spec", "submitterPodTemplate", "spec", "terminationGraceSeconds"], 3),
    ],
)
def test_the_check_finds_what_is_wrong(transloom, recipe_file, validator, place, value):
    _, job = documents(transloom, recipe_file)
    *path, name = place
    part = job = copy.deepcopy(job)
    for step in path:
        part = part[step]
    part[name] = value
    assert list(validator.iter_errors(job))


def test_what_kuberay_checks_beside_its_schema(transloom, recipe_file):
    """`ValidateRayJobSpec` and `ValidateRayClusterSpec` of KubeRay 1.7.0."""
    _, job = documents(transloom, recipe_file)
    spec = job["spec"]
    assert spec["submissionMode"] == "K8sJobMode"  # backoffLimit and a submitter may be given
    assert spec["shutdownAfterJobFinishes"]  # else neither a time to live nor Kueue
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert tuple(map(int, ray.__version__.split(".")[:2])) >= (2, 52)  # for the token
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert "resources" not in group  # not beside num-cpus
        assert "labels" not in group["rayStartParams"]
    # The operator puts it unquoted into a line of the shell.
    assert spec["entrypoint"] == "bash /etc/transloom/train.sh"


def test_the_recipe_stays_readable(transloom, recipe_file):
    recipe = recipe_file.read_text() + "# très: \t▁a \n\n#\ttab  \n"
    recipe_file.write_text(recipe)
    printed = transloom("deploy", "kuberay", recipe_file).output
    assert "  recipe.yaml: |\n" in printed
    block = "".join(f"    {line}" if line.strip() else line for line in recipe.splitlines(True))
    assert block in printed
    files, _ = yaml.safe_load_all(printed)
    assert files["data"]["recipe.yaml"] == recipe


@pytest.mark.parametrize("text", ["1e3", "y", "No", "0o17", "1_000", "~", "null", "12:30", " "])
def test_texts_that_another_reader_of_yaml_takes_for_something_else_are_quoted(text):
    """YAML 1.1 and 1.2 differ in numbers and truth values, and kubectl reads some of both."""
    (written,) = (
        event
        for event in yaml.parse(kuberay.to_yaml([{"key": text}]))
        if isinstance(event, yaml.ScalarEvent) and event.value == text
    )
    assert written.style in ("'", '"')


@given(st.text(st.sampled_from("\n \t\r#:-|>'\"%é▁\x85\u2028\ufeff\0\x1b😀a1ey"), max_size=20))
def test_any_text_is_read_as_it_was(text):
    document = {"data": {"recipe.yaml": text, f"key {text}": "1e3"}}
    assert list(yaml.safe_load_all(kuberay.to_yaml([document]))) == [document]


def test_what_the_recipe_says(transloom, recipe_file):
    files, job = documents(transloom, recipe_file, "trainer.max_steps=9", "tracking.project=it's")
    assert files["data"]["recipe.yaml"] == recipe_file.read_text()
    train = files["data"]["train.sh"].splitlines()[0]
    assert shlex.split(train) == [
        *("train=(transloom", "train", "/etc/transloom/recipe.yaml"),
        *("trainer.max_steps=9", "tracking.project=it's"),
        *("--address", "auto", "--run", "/shared/runs/tiny)"),
    ]
    assert job["metadata"] == {
        "name": "tiny",
        "namespace": "mt",
        "labels": {"team": "mt", "kueue.x-k8s.io/queue-name": "nightly"},
    }
    spec = job["spec"]
    assert spec["backoffLimit"] == 5
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    head = spec["rayClusterSpec"]["headGroupSpec"]
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 3, 3)
    assert workers["rayStartParams"]["num-cpus"] == "6"
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {
        "cpu": "6",
        "memory": "24500M",
        "nvidia.com/gpu": "2",
    }
    assert workers["template"]["spec"]["nodeSelector"] == {"pool": "gpu"}
    pods = [group["template"]["spec"] for group in (head, workers)]
    for pod in [*pods, spec["submitterPodTemplate"]["spec"]]:
        (main,) = pod["containers"]
        assert pod["serviceAccountName"] == "trainer"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert pod["tolerations"] == [taint]
        assert pod["terminationGracePeriodSeconds"] > 300
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1234
        assert main["securityContext"]["readOnlyRootFilesystem"]
        assert main["envFrom"] == [{"secretRef": {"name": "wandb"}}]
        assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]
    for pod in pods:
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"/tmp", "/etc/transloom", "/shared", "/shared/corpora"}
    stops = [pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] for pod in pods]
    assert stops[0] == ["bash", "/etc/transloom/stop.sh"]
    assert stops[1] == ["timeout", "300", "transloom", "deploy", "drain-node", "--seconds", "300"]


def test_workers_that_may_be_missing_are_those_that_the_least_ranks_do_without(
    transloom, recipe_file
):
    _, job = documents(transloom, recipe_file, "cluster.ranks={min: 1, max: 5}")
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster.kubernetes.image=null"], "pods need an image"),
        (
            ["--run", "/elsewhere/run"],
            "the run's folder is /elsewhere/run, which is on no volume",
        ),
        (["--run", "/shared/corpora/run"], "at /shared/corpora, which is read_only"),
        (["data.dataset=datasets/x"], "data.dataset is datasets/x, which is on no volume"),
        (["cluster.kubernetes.volumes=[]"], "has no writable volume"),
        (["cluster.kubernetes.user=0"], "cluster.kubernetes.user is 0"),
        (["cluster.kubernetes.volumes.0.path=/shared"], "two volumes are at /shared"),
    ],
)
def test_what_is_refused(transloom, recipe_file, arguments, said):
    with pytest.raises(RecipeError) as error:
        transloom("deploy", "kuberay", recipe_file, *arguments)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("multi30k-ende", "multi30k-ende"),
        ("Tiny,seed=2", "tiny-seed-2"),
        ("30k", "run-30k"),
        ("a" * 47, "a" * 47),
        ("…", "run"),
    ],
)
def test_names_of_jobs(run, name):
    assert kuberay.job_name(run) == name


def test_long_names_stay_different():
    names = {kuberay.job_name(f"{'long-' * 9}{end}") for end in ("ab", "cd")}
    assert len(names) == 2
    assert {len(name) for name in names} <= set(range(40, 48))


def test_a_name_that_kubernetes_would_refuse(transloom, recipe_file):
    assert transloom("deploy", "kuberay", recipe_file, "--name", "My_Job").exit_code == 2
    assert documents(transloom, recipe_file, "--name", "my-job")[1]["metadata"]["name"] == "my-job"


def test_a_recipe_that_comes_with_transloom(transloom):
    """One with relative paths is refused, with what to say instead; then it is taken."""
    shared = "cluster.kubernetes.volumes=[{claim: shared, path: /shared}]"
    image = "cluster.kubernetes.image=transloom:cpu"
    with pytest.raises(RecipeError, match=r"Use data\.dataset= with a path below one"):
        transloom("deploy", "kuberay", "phrasebook", shared, image)
    dataset = "data.dataset=/shared/datasets/phrasebook"
    _, job = documents(transloom, "phrasebook", shared, image, dataset)
    assert job["metadata"]["name"] == "phrasebook"
