"""Fixtures and hooks for all tests. Rank processes and Ray are started once per session."""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from support.machine_parts import lacks, missing
from support.quality import hangs
from support.quality.targets import check_targets, mark_long
from support.real_data import MULTI30K

from cluster.supervision.command_signals import restore_signal_handlers
from trainer.start.opening import open_folder
from transloom.cli.exit_code import keep_exit_code

keep_exit_code()  # because this process is a Ray driver repeatedly

os.environ.pop("WANDB_MODE", None)  # the recipes set the mode
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# Imitate users' machines: a time zone with an offset of 5:45 h, and a choice of devices.
os.environ["TZ"] = "Asia/Kathmandu"
time.tzset()
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
# Three parts of the tests run at the same time, so a second thread of torch finds no idle core: it
# would cost a quarter more CPU time without a gain. Ranks, replicas and actors set their own
# numbers of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# There are more threads than cores, so a waiting thread must not occupy a core by spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_watch = hangs.HangWatch(hangs.Limits())
_ORDERS, _HEAD = pytest.StashKey[Any](), pytest.StashKey[Any]()

# Use the same examples in every run, and no deadline, because the machine may be busy.
hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None)
hypothesis.settings.load_profile("reproducible")


# Half a million objects of libraries and tests exist until the end; searching them repeatedly for
# garbage took a tenth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Enable garbage collection, but only for objects created from now on."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Determine the target of each test, before `-m` deselects tests."""
    mark_long(items, config.rootpath)
    check_targets(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End a unit test that hangs, and reset global state after the test's fixtures.

    `support.quality.hangs` detects hangs. Orders of a failed test would stop the runs of later
    tests. urllib keeps the proxies of its first request, so later tests would use these.
    """
    if not any(item.get_closest_marker(mark) for mark in ("proof", "long", "chaos", "lab", "gpu")):
        _watch.begin()
    try:
        return (yield)
    finally:
        _watch.end()
        urllib.request.install_opener(None)
        if orders := item.config.stash.get(_ORDERS, None):
            orders.clear()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs a program which this machine lacks; see `support.machine_parts`.

    Start the shared Ray head again if it has died, so that not all later tests fail.
    """
    head = item.config.stash.get(_HEAD, None)
    if head and (output := head.start_again_if_dead()):
        writer = item.config.get_terminal_writer()
        writer.line(f"\nThe Ray head of the tests had died before {item.nodeid}:\n{output}")
    for marker in item.iter_markers("needs"):
        if reason := lacks(*marker.args):
            missing(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Restore signal handlers, because a command that ran in this process may ignore signals.

    Otherwise all processes that later tests start would also ignore these signals.
    """
    restore_signal_handlers()


@pytest.fixture(scope="session", autouse=True)
def short_pauses() -> Iterator[None]:
    """Shorten the pauses before unreadable files are read again to a hundredth.

    Otherwise each read of a shard that a test damages would take 10 s. Processes of `ray_head` have
    the same short pauses (support/faults/site); other processes have the usual pauses.
    """
    from data_pipeline.storage import object_store, remote

    pauses = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "time", pauses)
        patch.setattr(object_store, "_FIRST_RETRY_SECONDS", 0.001)
        patch.setattr(object_store, "_LONGEST_RETRY_SECONDS", 0.01)
        yield


@pytest.fixture(scope="session", autouse=True)
def same_priority() -> Iterator[None]:
    """Keep commands such as `watch` from lowering the priority of all later tests."""
    lower = os.nice
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "nice", lambda _: lower(0))
        yield


@pytest.fixture(scope="session")
def multi30k() -> Path:
    """Return the folder with the Multi30k corpus, or skip the test if it is missing."""
    if not MULTI30K.is_dir():
        pytest.skip(f"no Multi30k at {MULTI30K}; name its folder by TRANSLOOM_TEST_DATA")
    return MULTI30K


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium once for the tests of a file, and return it."""
    from support.dashboard.browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Any:
    """Return orders that pause processes of `ray_head` at chosen points, to inject faults there."""
    from support.faults.moments import Orders

    pytestconfig.stash[_ORDERS] = Orders(tmp_path_factory.mktemp("orders"))
    return pytestconfig.stash[_ORDERS]


@pytest.fixture(scope="session")
def ray_head(orders: Any, pytestconfig: pytest.Config) -> Iterator[object]:
    """Start one Ray head for all tests; this process and its children get the head's token.

    The environment of the head's processes contains fake credentials: see `support.canaries`.
    """
    from support import canaries
    from support.cluster.ray_head import RayHead

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        environment = orders.environment | canaries.environment(Path(folder))
        head = RayHead(Path(folder), cpus=4, environment=environment)
        before = os.environ.get("RAY_AUTH_TOKEN")
        os.environ["RAY_AUTH_TOKEN"] = head.token
        pytestconfig.stash[_HEAD] = head
        try:
            yield head
        finally:
            del pytestconfig.stash[_HEAD]
            head.stop()
            os.environ.pop("RAY_AUTH_TOKEN")
            if before is not None:
                os.environ["RAY_AUTH_TOKEN"] = before


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a local object store: moto, or SeaweedFS with TRANSLOOM_TEST_S3=seaweedfs."""
    from support.storage.s3_server import USES_SEAWEEDFS, S3Server

    folder = tmp_path_factory.mktemp("objects")
    with S3Server.seaweedfs(folder) if USES_SEAWEEDFS else S3Server.moto() as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables with which this process uses `s3_server`."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def fault_proxy(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a proxy that fails on demand, through which this process uses `s3_server`."""
    from support.storage.fault_proxy import FaultProxy

    with FaultProxy(s3_server.url) as proxy:
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a local object store (rclone) that ignores the conditions of conditional writes."""
    from support.storage.s3_server import S3Server

    with S3Server.rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="module")
def fault_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a `FaultServer`, for tests that inject a fault at every file operation."""
    from support.files.file_faults import FaultServer

    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    server = FaultServer(tmp_path_factory.mktemp("faults"))
    yield server
    server.close()


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """Return a file with the recipe of a tiny run, whose dataset is not prepared."""
    from support.recipes import tiny_values, write_yaml

    return write_yaml(tmp_path / "tiny.yaml", tiny_values(tmp_path / "dataset"))


@pytest.fixture(scope="session")
def phrasebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the prepared phrase book."""
    from support.recipes import tiny_recipe

    from data_pipeline.preparation.prepare import prepare

    dataset = tmp_path_factory.mktemp("phrasebook") / "dataset"
    recipe = tiny_recipe(dataset)
    prepare(recipe.data_settings, lambda progress: None)
    return dataset


@pytest.fixture(scope="session")
def phrasebook_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of the English sentences of the phrase book, prepared as documents."""
    from support.tasks import language_model_values

    from cluster.recipe import Recipe
    from data_pipeline.preparation.prepare import prepare

    dataset = tmp_path_factory.mktemp("documents") / "dataset"
    prepare(Recipe.of(language_model_values(dataset)).data_settings, lambda progress: None)
    return dataset


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory: pytest.TempPathFactory, phrasebook: Path) -> Any:
    """Return a run with two checkpoints of untrained weights, made without training."""
    from support.recipes import tiny_recipe
    from support.records.checkpoints import save_checkpoint

    from data_pipeline.dataset.manifest import open_dataset
    from data_pipeline.tokenizers.tokenizer import load_tokenizers
    from run_store.checkpoints.format import CheckpointHeader
    from run_store.checkpoints.fragment import Fragment
    from run_store.folder import RunFolder
    from trainer.recipe import identity_of
    from trainer.tasks.network import build_network

    folder = tmp_path_factory.mktemp("run")
    recipe = tiny_recipe(phrasebook)
    store, manifest = open_dataset(recipe.data)
    run = RunFolder(folder / "tiny")
    open_folder(run, recipe, store, manifest)
    tokenizers = load_tokenizers(store, manifest)
    for step in (1, 2):
        training = recipe.training().model_copy(update={"seed": step})
        model = build_network(training, tokenizers)
        weights = dict(model.named_parameters())
        fragments = [Fragment("master", n, 0, p.detach().view(-1)) for n, p in weights.items()]
        header = CheckpointHeader(
            step=step,
            optimizer_step=step,
            cursor={"epoch": 0, "window": 0, "offset": 0},
            data_digest="0" * 64,
            dataset_identity=manifest.identity,
            recipe=training.model_dump(mode="json"),
            identity=identity_of(training),
            numerics={},
            parameters={name: list(p.shape) for name, p in weights.items()},
            parameter_groups=[],
            target_tokens_seen=0,
        )
        save_checkpoint(run.checkpoints, header, [fragments])
    return run


@pytest.fixture
def runs(tmp_path: Path, phrasebook: Path, ray_head: Any) -> Any:
    """Return `Runs` of a tiny recipe on the phrase book, which train on `ray_head`."""
    return _runs(tmp_path, phrasebook, ray_head.address)


@pytest.fixture
def inline_runs(tmp_path: Path, phrasebook: Path) -> Any:
    """Return `Runs` of a tiny recipe on the phrase book, which train without Ray."""
    return _runs(tmp_path, phrasebook, address="")


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Return a notification override, and the file to which its command appends the messages."""
    messages = tmp_path / "messages"
    command = ["/bin/sh", "-c", f"cat >> {messages}; echo >> {messages}"]
    monkeypatch.setenv("TRANSLOOM_TEST_COMMAND", json.dumps(command))
    targets = "{targets: [{command_from: TRANSLOOM_TEST_COMMAND}]}"
    return f"tracking.notify={targets}", messages


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, phrasebook: Path, ray_head: Any) -> Any:
    """Return `Runs` with an uninterrupted run "undisturbed" of 60 steps on two ranks.

    The run is validated at steps 30 and 60.
    """
    runs = _runs(tmp_path_factory.mktemp("undisturbed"), phrasebook, ray_head.address)
    validated = "trainer.validate_every_steps=30"
    runs.train("undisturbed", "cluster.ranks=2", "trainer.max_steps=60", validated)
    return runs


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory: pytest.TempPathFactory, phrasebook: Path) -> Any:
    """Return `Runs` with a run "one-rank" of 60 steps by one rank without Ray."""
    runs = _runs(tmp_path_factory.mktemp("one-rank"), phrasebook, address="")
    runs.train("one-rank", "trainer.max_steps=60", inline=True)
    return runs


def _runs(folder: Path, phrasebook: Path, address: str) -> Any:
    from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
    from support.runs import Runs

    values = tiny_values(phrasebook) | {"decoding": SHORT_TRANSLATIONS}
    recipe = write_yaml(folder / "tiny.yaml", values)
    return Runs(recipe, folder, address)


@pytest.fixture
def fresh_extensions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unload all extensions and unset their folder; remove modules ext_… after the test."""
    from foundation import extensions

    monkeypatch.delenv(extensions.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(extensions, "_loaded", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("ext_"):
            del sys.modules[name]


@pytest.fixture
def another_users_process() -> Iterator[int]:
    """Return the id of a process to which this process may not send signals."""
    if os.geteuid() != 0:
        yield 1  # init belongs to root
        return
    nobody, stranger = 65534, 65533
    process = subprocess.Popen(["sleep", "600"], user=nobody)
    os.seteuid(stranger)
    try:
        yield process.pid
    finally:
        os.seteuid(0)
        process.kill()
        process.wait()


@pytest.fixture
def preloaded_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of a `process_pool` from a server process that has imported torch.

    The server process remains a child of this process.
    """
    from multiprocessing import forkserver

    from support.ranks.rank_pool import preloaded_context

    from foundation import process_pool

    context = preloaded_context()
    forkserver.ensure_running()
    monkeypatch.setattr(
        process_pool, "multiprocessing", SimpleNamespace(get_context=lambda method: context)
    )


@pytest.fixture(scope="session")
def rank_pools() -> Iterator[Callable[[int], object]]:
    """Return a function from a world size to a `RankPool`, which is started at its first use."""
    from support.ranks.rank_pool import RankPool

    pools: dict[int, RankPool] = {}

    def pool(world_size: int) -> RankPool:
        if world_size not in pools:
            pools[world_size] = RankPool(world_size)
        return pools[world_size]

    yield pool
    for started in pools.values():
        started.close()
