"""Runs in an object store have the same curve as in a folder, on nodes without a shared folder."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from support.cluster.ray_head import RayHead
from support.command import transloom
from support.runs import Runs
from support.serving.asking import ask
from support.serving.served import served

from run_store.remote.pull import run_view
from run_store.remote.push_pull import push_run
from transloom.observe.comparison.comparison import compare_runs

STEPS = 16
EXACT = ["engine.numerics=exact", "checkpoints.every_steps=4"]
SENTENCES = ["je suis étudiant", "elle est là", "non"]
SPREAD = ["cluster.ranks=2", "cluster.cpus_per_rank=1", "cluster.placement=spread"]


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """Return the URL of an empty bucket, with its credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.bucket("runs")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Set the cache of this process, which is the driver of runs; return the caches' parent."""
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache-of-driver"))
    return tmp_path


@pytest.fixture
def cluster(bucket, cache, s3_server):
    """Yield a head without room for ranks, after adding two nodes with separate caches."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        head = RayHead(Path(folder), cpus=0, environment=s3_server.environment)
        nodes = []
        try:
            for name in ("one", "two"):
                own = {"TRANSLOOM_CACHE": str(cache / f"cache-of-{name}")}
                nodes.append(head.add_node(1, environment=own))
            yield head
        finally:
            for node in nodes:
                node.kill()
            head.stop()


@pytest.mark.proof
def test_a_run_continues_from_the_object_store_without_any_cache(inline_runs, bucket, cache):
    url = f"{bucket}/some/prefix/moved"
    inline_runs.train_at(url, *EXACT, "trainer.max_steps=10", inline=True)
    assert_it_continues_in_another_shape(inline_runs, url, cache)


def test_nodes_without_a_shared_folder_train_to_the_same_bits(
    inline_runs, cluster, bucket, cache, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
    url = f"{bucket}/some/prefix/moved"
    runs = Runs(inline_runs.recipe, inline_runs.folder, cluster.address)
    runs.train_at(url, *EXACT, *SPREAD, "trainer.max_steps=10")
    assert {path.name for path in cache.glob("cache-of-*")} == {
        f"cache-of-{name}" for name in ("driver", "one", "two")
    }
    assert_it_continues_in_another_shape(runs, url, cache)


def assert_it_continues_in_another_shape(runs, url, cache):
    """Delete all caches, continue the run at the URL, and compare it with a run in a folder."""
    for folder in cache.glob("cache-*"):
        shutil.rmtree(folder)
    to_the_end = [*EXACT, f"trainer.max_steps={STEPS}"]
    runs.train_at(url, *to_the_end, "engine.zero_stage=2", inline=True)
    runs.train("whole", *to_the_end, inline=True)
    view = run_view(url)
    comparison = compare_runs(runs.folder / "whole", view)
    assert comparison.is_same, comparison
    assert (comparison.steps, comparison.checkpoint_step) == (STEPS, STEPS)


@pytest.fixture
def head(bucket, cache, s3_server):
    """Yield a head with room for one rank."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        head = RayHead(Path(folder), cpus=2, environment=s3_server.environment)
        yield head
        head.stop()


@pytest.mark.long
def test_a_job_is_read_from_the_object_store_after_its_head_has_ended(
    inline_runs, head, bucket, cache, monkeypatch
):
    """The record and log of the job are those of its end, which the driver did not see."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    url = f"{bucket}/job"
    overrides = ["trainer.max_steps=6", "cluster.cpus_per_rank=1", *EXACT]
    options = ["--run", url, "--address", head.dashboard, "--follow"]
    submitted = transloom("submit", inline_runs.recipe, *overrides, *options, cwd=cache)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    head.stop()
    status = json.loads(transloom("jobs", "status", url, "--json", cwd=cache).stdout)
    assert (status["status"], status["exit_code"]) == ("SUCCEEDED", 0)
    assert status["run"] == url
    log = transloom("jobs", "logs", url, cwd=cache).stdout
    assert f"Finished at step 6. The run is in {url}." in log


@pytest.mark.long
def test_nodes_of_a_cluster_read_a_run_in_a_store(inline_runs, head, bucket, cache, monkeypatch):
    """Translate and replay with actors that have separate copies, and serve translations."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    inline_runs.train("here", *EXACT, "trainer.max_steps=48", inline=True)
    folder, url = inline_runs.folder / "here", f"{bucket}/runs/there"
    push_run(folder, url)
    file = cache / "sentences.txt"
    file.write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    address = ("--address", head.address)

    def said(*arguments):
        result = transloom(*arguments, cwd=cache)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    to = ("--on-cluster", "--output", cache / "out.txt", "--cpus-per-actor", 0.5)
    said("translate", url, file, *to, *address)
    texts = (cache / "out.txt").read_text().splitlines()
    assert texts == said("translate", folder, file).splitlines()
    assert any(texts)

    shared = ("--scratch", cache)
    replayed = said("replay", url, "--steps", "45:48", "--json", "--ranks", 2, *address, *shared)
    assert json.loads(replayed)["verdict"]["same"]

    with served(url) as server:
        _, answer = ask(server.address, SENTENCES)
    assert [best["text"] for best, *_ in answer["translations"]] == texts
