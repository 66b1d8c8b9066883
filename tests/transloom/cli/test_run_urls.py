"""Commands accept the URL of a run in place of its folder, and print the URL."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from support.invocation import invoke
from support.recipes import tiny_recipe
from support.records.lines import train_line
from support.runs import trained_run
from support.tasks import (
    embedding_values,
    language_model_values,
    language_values,
    masked_values,
)

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from data_pipeline.storage.store import open_store
from foundation import shown_urls
from foundation.location import Location
from run_store import lease as folder_lease
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import DamagedCheckpointError, RunInUseError, RunMismatchError
from run_store.folder import RunFolder
from run_store.record.recorded_status import write_recorded_status
from run_store.remote.head import HeadObject
from run_store.remote.mirror import RunMirror
from run_store.remote.pull import run_view
from run_store.remote.push_pull import pull_run, push_run
from trainer.start.warm_start import warm_start_of
from transloom.cli.run_urls import writable

SENTENCE = "elle est là"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def environment(cache, s3_environment, monkeypatch):
    """Let all tests share one cache of downloaded runs."""
    monkeypatch.setenv("TRANSLOOM_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture(scope="module")
def folder(untrained_run, tmp_path_factory):
    """Return a run with a record and two checkpoints."""
    folder = tmp_path_factory.mktemp("folder") / "runs" / "tiny"
    shutil.copytree(untrained_run.path, folder)
    record = "".join(f"{train_line(step).to_json()}\n" for step in (1, 2))
    (folder / "metrics.jsonl").write_text(record)
    write_recorded_status(RunFolder(folder))
    return folder


@pytest.fixture(scope="module")
def prefix(s3_server, folder, cache):
    """Return the URL of a prefix with one run, which tests must not change."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setenv("TRANSLOOM_CACHE", str(cache))
        url = s3_server.bucket("read") + "/our/runs"
        push_run(folder, f"{url}/tiny")
    return url


@pytest.fixture
def own(s3_server, folder):
    """Return the URL of a run that a test may change."""
    url = s3_server.bucket("own") + "/tiny"
    push_run(folder, url)
    return url


@pytest.fixture
def said(cache):
    """Return a function that runs a command and returns its output, without cache paths."""

    def run(*arguments, code=0):
        result = invoke(*arguments, code=code)
        assert str(cache) not in result.output, result.output
        return result.stdout

    return run


def comparable(text):
    """Return a command's output without times, sizes, owners and column padding."""
    varying = r"(\d\d:\d\d:\d\d|\"bytes\": \d+|owner .*|(?<=seconds\{).*)"
    return re.sub(" +", " ", re.sub(varying, "", text))


@pytest.mark.matrix
@pytest.mark.parametrize(
    "command",
    [
        ("status", "RUN"),
        ("checkpoints", "list", "RUN", "--json"),
        ("checkpoints", "verify", "RUN"),
        ("model", "show", "RUN"),
        ("explain", "RUN", SENTENCE, "-o", "TMP/page.html", "--json"),
        ("checkpoints", "prune", "RUN", "--keep-last", "1", "--dry-run"),
        ("compare", "RUN", "FOLDER", "--json"),
        ("metrics", "RUN"),
        ("export-metrics", "RUN", "--to", "csv", "-o", "TMP/csv", "--force"),
    ],
)
def test_a_command_prints_the_same_for_a_url_and_a_folder(said, prefix, folder, tmp_path, command):
    url = f"{prefix}/tiny"
    words = {"FOLDER": str(folder)}
    words |= {f"TMP/{name}": str(tmp_path / name) for name in ("page.html", "csv")}

    def answer(run):
        return said(*(words.get(word, word) if word != "RUN" else run for word in command))

    there, here = answer(url), answer(folder)
    assert comparable(there).replace(url, str(folder)) == comparable(here)
    assert (url in there) == (command[0] in ("status", "checkpoints"))


def test_translate_prints_the_same_for_urls_as_for_folders(said, prefix, folder, tmp_path):
    sentences = tmp_path / "sentences.txt"
    sentences.write_text(f"{SENTENCE}\nje suis là\n")
    names = [f"{prefix}/tiny@1", f"{prefix}/tiny"]
    here = [f"{folder}@1", folder]
    options = (sentences, "--beam-size", 1, "--processes", 1)
    assert said("translate", *names, *options) == said("translate", *here, *options)


def test_translate_uses_an_earlier_checkpoint_if_a_remote_part_is_damaged(said, own, tmp_path):
    """The hash of an uploaded part is checked when its weights are read."""
    sentence = tmp_path / "sentence.txt"
    sentence.write_text(SENTENCE)
    options = (sentence, "--beam-size", 1)
    expected = said("translate", f"{own}@1", *options)
    store = ObjectStore(own)
    (part,) = (o.name for o in store.list() if "step-00000002" in o.name and "state-" in o.name)
    data = bytearray(store.get(part, 10**8).data)
    data[-1] ^= 1
    store.put(part, bytes(data))

    assert said("translate", own, *options) == expected
    with pytest.raises(DamagedCheckpointError):
        said("translate", f"{own}@2", *options)


def test_runs_lists_the_runs_below_a_prefix(said, prefix, folder):
    rows = json.loads(said("runs", prefix, "--json"))
    assert [(row["name"], row["path"], row["state"]) for row in rows] == [
        ("tiny", f"{prefix}/tiny", "stopped")
    ]
    assert rows == json.loads(said("runs", "list", prefix, "--json"))
    here = json.loads(said("runs", folder.parent, "--json"))
    assert rows[0]["checkpoint_step"] == here[0]["checkpoint_step"]
    with pytest.raises(RunMismatchError, match=f"no run at {prefix}/tinyy, and none below"):
        said("runs", f"{prefix}/tinyy")
    with pytest.raises(RunMismatchError) as caught:
        said("runs", f"{prefix}/tiny")
    assert f"`transloom status {prefix}/tiny`" in shown_urls.with_urls(str(caught.value))


def test_watch_accepts_the_url_of_a_run_and_of_a_prefix(said, prefix):
    assert f"{prefix}/tiny" in said("watch", f"{prefix}/tiny", "--once")
    assert prefix in said("watch", prefix, "--once")
    assert json.loads(said("watch", f"{prefix}/tiny", "--json"))["standing"]["step"] == 2


def test_a_report_names_the_runs_url_and_not_the_cache(said, prefix, cache, tmp_path):
    said("report", f"{prefix}/tiny", "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert str(cache) not in page
    assert f"transloom runs pull {prefix}/tiny tiny" in page


def test_the_export_of_a_url_equals_the_export_of_its_folder(said, prefix, folder, tmp_path):
    options = ("--to", "huggingface")
    said("export", f"{prefix}/tiny", tmp_path / "there", *options)
    said("export", folder, tmp_path / "here", *options)
    for path in (tmp_path / "here").rglob("*.safetensors"):
        assert (tmp_path / "there" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.long
def test_evaluate_uploads_translations_to_the_run(said, own, tmp_path):
    """The next driver keeps these translations, and readers can open them."""
    before = HeadObject(ObjectStore(own)).read().files.keys()
    scores = json.loads(said("evaluate", own, "--set", "validation", "--beam-size", 1, "--json"))
    assert scores[0]["hypotheses"].startswith(f"{own}/translations/")
    head = HeadObject(ObjectStore(own)).read()
    added = sorted(head.files.keys() - before)
    assert len(added) == 2
    assert all(name.startswith("translations/") for name in added)
    stored = {name: (run_view(own) / name).read_bytes() for name in added}
    with RunMirror(own, RunFolder(tmp_path / "node"), lambda text: None) as mirror:
        assert mirror.flush(30)
        assert {name: (tmp_path / "node" / name).read_bytes() for name in added} == stored
    head = HeadObject(ObjectStore(own)).read()
    assert head.files.keys() >= set(added)
    assert {name: (run_view(own) / name).read_bytes() for name in added} == stored


def test_a_running_driver_downloads_and_keeps_a_file_that_a_command_adds(own, tmp_path):
    with RunMirror(own, RunFolder(tmp_path / "node"), lambda text: None) as mirror:
        run = RunFolder(run_view(own))
        with writable(run) as written:
            written.tuned_decoding.write_text("{}")
        assert run.tuned_decoding.read_text() == "{}"
        assert "tuned-decoding.json" in HeadObject(ObjectStore(own)).read().files
        assert mirror.flush(30)
        assert mirror.flush(30)
        assert (tmp_path / "node" / "tuned-decoding.json").read_text() == "{}"
        head = HeadObject(ObjectStore(own)).read()
        assert "tuned-decoding.json" in head.files
        assert RunFolder(run_view(own)).tuned_decoding.read_text() == "{}"


def test_average_uploads_a_checkpoint_equal_to_the_folders(said, own, folder, tmp_path):
    told = said("checkpoints", "average", own)
    assert f"transloom translate {own} --checkpoint average-of-1-2" in told
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    said("checkpoints", "average", copy)
    sentence = tmp_path / "sentence.txt"
    sentence.write_text(SENTENCE)
    options = (sentence, "--checkpoint", "average-of-1-2", "--beam-size", 1)
    assert said("translate", own, *options) == said("translate", copy, *options)
    pull_run(own, tmp_path / "pulled")
    ours, theirs = (
        sorted((run / "checkpoints" / "average-of-1-2").iterdir())
        for run in (tmp_path / "pulled", copy)
    )
    assert [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    before = {object.name for object in ObjectStore(own).list()}
    said("checkpoints", "average", own)  # replaces the average
    assert len({object.name for object in ObjectStore(own).list()}) == len(before)


def test_average_adds_a_checkpoint_while_a_driver_trains(said, own, tmp_path):
    with RunMirror(own, RunFolder(tmp_path / "node"), lambda text: None) as mirror:
        said("checkpoints", "average", own)
        mirror.begin_attempt("next")
        assert mirror.flush(30)
    assert "average-of-1-2" in said("checkpoints", "list", own)
    said("checkpoints", "verify", own)


def test_prune_deletes_remote_checkpoints_of_a_run_without_a_driver(said, own, tmp_path):
    removed = json.loads(said("checkpoints", "prune", own, "--keep-last", 1, "--json"))["removed"]
    assert removed == [f"{own}/checkpoints/step-00000001"]
    assert not [o for o in ObjectStore(own).list() if "step-00000001" in o.name]
    assert "step-00000001" not in said("checkpoints", "list", own, "--json")
    said("checkpoints", "verify", own)


def test_prune_refuses_a_remote_run_with_a_driver(said, own, tmp_path, monkeypatch):
    from run_store.remote import lease

    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.05)
    with RunMirror(own, RunFolder(tmp_path / "node"), lambda text: None) as mirror:
        mirror._thread._interval_seconds = 0.1
        mirror._thread.wake()
        with pytest.raises(RunInUseError):
            said("checkpoints", "prune", own, "--keep-last", 1)
    assert "step-00000001" in said("checkpoints", "list", own, "--json")


def test_stop_and_workers_requests_require_a_driver_and_reach_it(said, own, tmp_path):
    for command in (("stop", own), ("workers", own, 3)):
        with pytest.raises(RunMismatchError, match=f"{own} is not being trained"):
            said(*command)
    node = RunFolder(tmp_path / "node")
    with RunMirror(own, node, lambda text: None) as mirror:
        assert json.loads(said("stop", own, "--json"))["run"] == own
        said("workers", own, 3)
        assert mirror.flush(30)
        assert node.stop_requested_at() is not None
        assert node.take_data_workers_request() == 3


def test_push_and_pull_copy_a_run_with_its_checkpoints(said, own, folder, tmp_path):
    url = f"{own}-again"
    told = json.loads(said("runs", "push", folder, url, "--json"))
    assert (told["to"], told["checkpoints"]) == (url, 2)
    assert "all verified" in said("runs", "pull", url, tmp_path / "pulled")
    said("compare", tmp_path / "pulled", folder)
    assert "push" in said("runs", "--help")
    assert "FOLDER" in said("runs", "list", "--help")


@pytest.mark.long
def test_the_python_api_reads_the_same_record_from_a_url(prefix, folder, monkeypatch):
    from transloom.api import Run

    assert Run(f"{prefix}/tiny").lines() == Run(folder).lines() != []


def test_a_run_can_start_from_the_weights_of_a_url(prefix, folder, phrasebook, tmp_path):
    recipe = tiny_recipe(phrasebook).training()

    def start(origin):
        trainer = recipe.trainer.model_copy(update={"init_from": Location(origin)})
        wanted = recipe.model_copy(update={"trainer": trainer})
        manifest = Manifest.load(open_store(str(phrasebook)))
        return warm_start_of(wanted, RunFolder(tmp_path / "new"), manifest, None)

    for step in ("", "@1"):
        there, here = start(f"{prefix}/tiny{step}"), start(f"{folder}{step}")
        assert there.parent == here.parent
        assert there.url == f"{prefix}/tiny"
        shutil.rmtree(there.path.parents[1])  # as on a node without a copy
        found, expected = (CheckpointReader(s.checkpoint()).weights() for s in (there, here))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.long
def test_replay_trace_compare_and_tune_decoding_accept_urls(said, inline_runs, s3_server, tmp_path):
    """These commands read most files: checkpoints, moments, the dataset's record, the recipe."""
    options = ("trainer.max_steps=6", "checkpoints.every_steps=3", "engine.numerics=exact")
    inline_runs.train("trained", *options, inline=True)
    folder, url = inline_runs.folder / "trained", s3_server.bucket("own") + "/trained"
    push_run(folder, url)
    steps = ("--steps", "4:6", "--json")
    replayed = json.loads(said("replay", url, *steps))
    assert replayed["verdict"]["same"]
    assert said("data", "trace", url, *steps) == said("data", "trace", folder, *steps)
    said("compare", url, folder)
    tuned = json.loads(said("tune-decoding", url, "--beam-sizes", 1, "--json"))
    assert tuned["file"] == f"{url}/tuned-decoding.json"
    assert "tuned-decoding.json" in HeadObject(ObjectStore(url)).read().files


@pytest.mark.long
@pytest.mark.parametrize(
    ("values", "command"),
    [
        (language_values, ("classify", "RUN", SENTENCE, "--json")),
        (embedding_values, ("embed", "RUN", SENTENCE)),
        (masked_values, ("fill", "RUN", "the [MASK] is", "--json")),
        (language_model_values, ("generate", "RUN", "the", "--seed", 5)),
    ],
)
def test_commands_of_other_tasks_accept_urls(said, s3_server, tmp_path, values, command):
    folder = trained_run(values(tmp_path / "dataset"), tmp_path, 2)
    url = s3_server.bucket("task") + "/run"
    push_run(folder, url)

    there, here = (
        said(*(run if word == "RUN" else word for word in command)) for run in (url, folder)
    )

    assert there.replace(url, str(folder)) == here != ""


def test_http_urls_and_incomplete_s3_urls_are_refused(said, folder):
    from cluster.errors import RecipeError

    for command in (
        ("status", "http://host/run"),
        ("runs", "push", folder, "http://host/run"),
        ("runs", "pull", "runs/here", "there"),
    ):
        with pytest.raises(RecipeError, match="s3://BUCKET/PREFIX/NAME"):
            said(*command)
    with pytest.raises(RunMismatchError, match="expected s3"):
        said("status", "s3://bucket")


def test_status_reports_an_unreachable_object_store(said, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ObjectStoreError):
        said("status", "s3://nowhere/run")
    assert folder_lease.LEASE_SECONDS  # the error is about the store, not about a lease
