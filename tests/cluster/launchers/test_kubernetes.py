"""The RayJob of a run, checked against KubeRay's schema and rules, without a Kubernetes cluster."""

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
from support.pages import block
from support.recipes import tiny_values, write_yaml

from cluster.errors import RecipeError
from cluster.launchers.kubernetes import TEMPLATE, fill, job_name
from cluster.recipe import load_recipe

SCHEMA = Path(__file__).resolve().parents[2] / "fixtures" / "kuberay" / "rayjob-v1.schema.json"
KUBERNETES = {
    "image": "registry.example/transloom:cpu",
    "queue": "nightly",
    "priority_class": "urgent",
    "ranks_per_pod": 2,
    "memory_gigabytes": 24.5,
}


@pytest.fixture
def recipe_file(tmp_path):
    values = tiny_values(Path("/shared/corpora/tiny"))
    values["cluster"] |= {"ranks": 5, "gpus_per_rank": 1, "kubernetes": KUBERNETES}
    values["cluster"] |= {"grace_seconds": 300, "cpus_per_rank": 3, "niceness": 1}
    return write_yaml(tmp_path / "tiny.yaml", values)


def documents(transloom, recipe_file, *arguments):
    printed = transloom("deploy", "kubernetes", recipe_file, *arguments)
    assert printed.exit_code == 0, printed.output
    return list(yaml.safe_load_all(printed.output))


def closed(schema):
    """Return the schema as the API server applies it: no unknown fields, and int-or-string."""
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
    """Yield the places of a manifest for which the schema has CEL rules."""
    if "x-kubernetes-validations" in schema:
        yield place
    if isinstance(manifest, dict):
        for name, value in manifest.items():
            if name in schema.get("properties", {}):
                yield from ruled(schema["properties"][name], value, f"{place}.{name}")
    elif isinstance(manifest, list):
        for item in manifest:
            yield from ruled(schema.get("items", {}), item, f"{place}[]")


NOTHING = ["cluster.kubernetes.queue=null", "cluster.kubernetes.priority_class=null"]


@pytest.mark.parametrize("overrides", [[], [*NOTHING, "cluster.gpus_per_rank=0"]])
def test_the_manifest_passes_the_schema_and_its_rules(transloom, recipe_file, validator, overrides):
    files, job = documents(transloom, recipe_file, *overrides)
    assert [error.message for error in validator.iter_errors(job)] == []
    # CEL rules are about deletionStrategy, managedBy and backend, which the manifest does not use.
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
        (["spec", "submitterConfig", "retries"], 5),
        (["spec", "rayClusterSpec", "authOptions", "mode"], "tokens"),
        (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
        (["spec", "submitterPodTemplate", "spec", "terminationGraceSeconds"], 3),
    ],
)
def test_the_schema_check_rejects_wrong_manifests(transloom, recipe_file, validator, place, value):
    _, job = documents(transloom, recipe_file)
    *path, name = place
    part = job = copy.deepcopy(job)
    for step in path:
        part = part[step]
    part[name] = value
    assert list(validator.iter_errors(job))


def test_the_manifest_passes_kuberay_s_checks_outside_its_schema(transloom, recipe_file):
    """These are `ValidateRayJobSpec` and `ValidateRayClusterSpec` of KubeRay 1.7.0."""
    _, job = documents(transloom, recipe_file)
    spec = job["spec"]
    assert spec["submissionMode"] == "K8sJobMode"  # allows backoffLimit and a submitter
    assert spec["shutdownAfterJobFinishes"]  # required for a time to live and for Kueue
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert tuple(map(int, ray.__version__.split(".")[:2])) >= (2, 52)  # required for the token
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert "resources" not in group  # not allowed together with num-cpus
        assert "labels" not in group["rayStartParams"]
    # The operator puts the entrypoint unquoted into a shell command.
    assert spec["entrypoint"] == "bash /etc/transloom/train.sh"


def test_the_submitter_retries_for_ten_minutes(transloom, recipe_file):
    """A Kubernetes job waits for 10 s before its first retry, then twice as long each time, up to
    360 s.
    """
    _, job = documents(transloom, recipe_file)
    retries = job["spec"]["submitterConfig"]["backoffLimit"]
    assert sum(min(10 * 2**number, 360) for number in range(retries)) >= 600


SPECIAL = "\n \t\r#:-|>'\"%é▁\x7f\x85\u2028\ufeff\0\x1b😀a1ey{}"


@given(st.text(st.sampled_from(SPECIAL), max_size=20))
def test_text_in_a_template_reads_back_unchanged(text):
    filled = fill("data:\n  recipe.yaml: {{recipe}}\n  other: 1", {"recipe": text})
    assert yaml.safe_load(filled) == {"data": {"recipe.yaml": text, "other": 1}}


@pytest.mark.parametrize("text", ["1e3", "y", "No", "0o17", "1_000", "~", "null", "12:30", " "])
def test_texts_that_resemble_other_yaml_types_are_quoted(text):
    """YAML 1.1 and 1.2 differ in numbers and truth values, and kubectl accepts some of both."""
    assert fill("key: {{value}}", {"value": text}) == f'key: "{text}"'


def test_the_manifest_follows_the_recipe(transloom, recipe_file):
    files, job = documents(transloom, recipe_file, "trainer.max_steps=9", "tracking.project=it's")
    assert files["data"]["recipe.yaml"] == recipe_file.read_text()
    train = files["data"]["train.sh"].splitlines()[0]
    assert shlex.split(train) == [
        *("train=(transloom", "train", "/etc/transloom/recipe.yaml"),
        *("trainer.max_steps=9", "tracking.project=it's"),
        *("--address", "auto", "--run", "/shared/runs/tiny)"),
    ]
    assert files["metadata"]["name"] == job["metadata"]["name"] == "tiny"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "nightly"
    spec = job["spec"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    head = spec["rayClusterSpec"]["headGroupSpec"]
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 3, 3)
    assert workers["rayStartParams"]["num-cpus"] == "6"
    (container,) = workers["template"]["spec"]["containers"]
    limits = {"cpu": "6", "memory": "24500M", "nvidia.com/gpu": 2}
    assert container["resources"]["limits"] == limits
    pods = [group["template"]["spec"] for group in (head, workers)]
    for pod in [*pods, spec["submitterPodTemplate"]["spec"]]:
        (main,) = pod["containers"]
        assert main["image"] == KUBERNETES["image"]
        assert pod["priorityClassName"] == "urgent"
        assert pod["securityContext"]["runAsNonRoot"]
        assert main["securityContext"]["readOnlyRootFilesystem"]
        assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]
        mounts = {mount["mountPath"] for mount in main["volumeMounts"]}
        assert mounts == {"/tmp", "/etc/transloom", "/shared"}
    assert [pod["terminationGracePeriodSeconds"] for pod in pods] == [360, 360]
    stops = [pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] for pod in pods]
    assert stops == [["bash", f"/etc/transloom/{name}.sh"] for name in ("stop", "drain")]


def test_unset_recipe_fields_are_left_out_of_the_manifest(transloom, recipe_file):
    _, job = documents(transloom, recipe_file, *NOTHING, "cluster.gpus_per_rank=0")
    assert job["metadata"]["labels"] == {"app.kubernetes.io/name": "transloom"}
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = workers["template"]["spec"]
    assert "priorityClassName" not in pod
    assert pod["containers"][0]["resources"]["limits"].keys() == {"cpu", "memory"}


def test_the_smallest_number_of_ranks_decides_the_minimum_of_worker_pods(transloom, recipe_file):
    _, job = documents(transloom, recipe_file, "cluster.ranks={min: 1, max: 5}")
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster.kubernetes.image=null"], "cluster.kubernetes.image is null: build an image"),
        (["--run", "runs/mine"], "--run is runs/mine, which pods would not find"),
        (["data.dataset=datasets/x"], "data.dataset is datasets/x, which pods would not find"),
    ],
)
def test_recipes_that_pods_cannot_use_are_refused(transloom, recipe_file, arguments, said):
    with pytest.raises(RecipeError) as error:
        transloom("deploy", "kubernetes", recipe_file, *arguments)
    assert said in str(error.value)


def test_a_run_in_an_object_store_is_passed_to_the_scripts(transloom, recipe_file):
    files, _ = documents(transloom, recipe_file, "--run", "s3://bucket/runs/tiny")
    assert "--run s3://bucket/runs/tiny)" in files["data"]["train.sh"]
    assert files["data"]["stop.sh"].startswith("run=s3://bucket/runs/tiny\n")


def test_lines_added_to_a_user_s_template_are_kept(transloom, recipe_file, tmp_path, validator):
    template, containers = tmp_path / "mine.yaml", "            containers:\n"
    added = "            # Ours.\n" + block("how-to/kubernetes.md", "yaml edited")
    assert TEMPLATE.read_text().count(containers) == 1  # only in the pods of ranks
    template.write_text(TEMPLATE.read_text().replace(containers, added + containers))
    printed = transloom("deploy", "kubernetes", recipe_file, "--template", template).output
    assert "            # Ours.\n" in printed
    _, job = yaml.safe_load_all(printed)
    assert [error.message for error in validator.iter_errors(job)] == []
    pod = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}


@pytest.mark.parametrize("left", ["{{namespace}}", "{{ name }}", "{{}}", "{{name}} {{Name}}"])
def test_a_placeholder_without_a_value_is_refused(transloom, recipe_file, tmp_path, left):
    template = tmp_path / "mine.yaml"
    template.write_text(TEMPLATE.read_text() + f"namespace: {left}\n")
    with pytest.raises(RecipeError, match=r"nothing fills .* in double braces.* names name, image"):
        transloom("deploy", "kubernetes", recipe_file, "--template", template)


@pytest.mark.parametrize("part", ["{{name", "{{name}"])
def test_a_broken_placeholder_makes_invalid_yaml(part):
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(fill(f"a: {part}\nb: c", {"name": "tiny"}))


FORMER = {
    "namespace": "mt",
    "volumes": [{"claim": "shared", "path": "/shared"}],
    "token_secret": "ray-token",
    "environment_secrets": ["wandb"],
    "image_pull_secrets": ["registry"],
    "service_account": "trainer",
    "labels": {"team": "mt"},
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu"}],
    "head_memory_gigabytes": 8.0,
    "retries": 5,
    "user": 1234,
}


@pytest.mark.parametrize("name", FORMER)
def test_a_removed_field_is_refused_with_its_replacement(recipe_file, name):
    text = json.dumps(FORMER[name])
    with pytest.raises(RecipeError, match=rf"{name} cannot be set .*rayjob\.yaml, .* --template"):
        load_recipe(recipe_file, [f"cluster.kubernetes.{name}={text}"])


def test_defaults_of_removed_fields_in_a_run_s_recipe_are_accepted(recipe_file):
    values = yaml.safe_load(recipe_file.read_text())
    values["cluster"]["kubernetes"] |= {name: type(value)() for name, value in FORMER.items()}
    values["cluster"]["kubernetes"] |= {"head_memory_gigabytes": 4.0, "retries": 3, "user": 1000}
    before = load_recipe(recipe_file)
    recipe_file.write_text(yaml.safe_dump(values))
    assert load_recipe(recipe_file) == before


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
def test_a_job_name_is_a_valid_kubernetes_name(run, name):
    assert job_name(run) == name


def test_long_run_names_that_differ_give_different_job_names():
    names = {job_name(f"{'long-' * 9}{end}") for end in ("ab", "cd")}
    assert len(names) == 2
    assert {len(name) for name in names} <= set(range(40, 48))
