"""Fixtures shared by all tests. Costly things (rank processes, Ray) are made once."""

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

keep_exit_code()  # this process connects to Ray repeatedly as a driver

os.environ.pop("WANDB_MODE", None)  # the recipes say it
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# As on machines of users: not in UTC, a quarter of an hour off whole hours, and devices chosen.
os.environ["TZ"] = "Asia/Kathmandu"
time.tzset()
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
# Three parts of the tests run at the same time, so a second thread of torch finds no idle core: it
# costs a quarter more CPU time and makes nothing faster. Ranks, replicas and actors have as many
# threads as their settings say.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# More threads than cores: one that waits for another must not keep it from its core by spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_watch = hangs.HangWatch(hangs.Limits())
_ORDERS, _HEAD = pytest.StashKey[Any](), pytest.StashKey[Any]()

# The same examples in every run, and no deadline on a machine that others use too.
hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None)
hypothesis.settings.load_profile("reproducible")


# Half a million objects of libraries and of the tests themselves stay until the end; the repeated
# search through them for garbage took a tenth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage only in what comes from now on."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Decide which target runs each test, before `-m` deselects any."""
    mark_long(items, config.rootpath)
    check_targets(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End a unit test that hangs, and take back what it has left, after its fixtures.

    For hangs, see `support.quality.hangs`. The runs of later tests would stop at the orders of a
    test that failed. urllib keeps the proxies that are in the environment of its first request:
    those of later tests would go to the proxy of one.
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
    """Skip a test of a part that this machine lacks; see `support.machine_parts`.

    Start the shared Ray head again if it has died, so that one test fails of that and not all.
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
    """Take back that signals are ignored: a command that has run here owned its process.

    Otherwise all that later tests start would ignore them, too.
    """
    restore_signal_handlers()


@pytest.fixture(scope="session", autouse=True)
def short_pauses() -> Iterator[None]:
    """Files that cannot be read are read again as often as ever, after a hundredth of the pauses.

    Where a test damages a shard, each reading of it would take 10 s. The processes of `ray_head`
    do the same (support/faults/site), others pause as they do for users.
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
    """Commands that lower their priority, such as `watch`, do not lower that of all later tests."""
    lower = os.nice
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "nice", lambda _: lower(0))
        yield


@pytest.fixture(scope="session")
def multi30k() -> Path:
    """The folder with the real corpus."""
    if not MULTI30K.is_dir():
        pytest.skip(f"no Multi30k at {MULTI30K}; name its folder by TRANSLOOM_TEST_DATA")
    return MULTI30K


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of a file that open pages."""
    from support.dashboard.browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Any:
    """Moments at which the processes that `ray_head` starts stop, for a test to strike there."""
    from support.faults.moments import Orders

    pytestconfig.stash[_ORDERS] = Orders(tmp_path_factory.mktemp("orders"))
    return pytestconfig.stash[_ORDERS]


@pytest.fixture(scope="session")
def ray_head(orders: Any, pytestconfig: pytest.Config) -> Iterator[object]:
    """One Ray head for all tests; this process and its children have its token.

    Its processes have canaries for credentials in their environment: see `support.canaries`.
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
    """An object store of this host: moto, or with TRANSLOOM_TEST_S3=seaweedfs SeaweedFS."""
    from support.storage.s3_server import USES_SEAWEEDFS, S3Server

    folder = tmp_path_factory.mktemp("objects")
    with S3Server.seaweedfs(folder) if USES_SEAWEEDFS else S3Server.moto() as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process uses `s3_server`, with a key from its environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def fault_proxy(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A proxy before `s3_server` that fails on demand; this process uses the store through it."""
    from support.storage.fault_proxy import FaultProxy

    with FaultProxy(s3_server.url) as proxy:
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An object store of this host (rclone) that accepts conditional writes unconditionally."""
    from support.storage.s3_server import S3Server

    with S3Server.rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="module")
def fault_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `FaultServer`, for tests that strike at every file operation."""
    from support.files.file_faults import FaultServer

    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    server = FaultServer(tmp_path_factory.mktemp("faults"))
    yield server
    server.close()


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A file with the recipe of a tiny run, whose dataset is not prepared."""
    from support.recipes import tiny_values, write_yaml

    return write_yaml(tmp_path / "tiny.yaml", tiny_values(tmp_path / "dataset"))


@pytest.fixture(scope="session")
def phrasebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared phrase book."""
    from support.recipes import tiny_recipe

    from data_pipeline.preparation.prepare import prepare

    dataset = tmp_path_factory.mktemp("phrasebook") / "dataset"
    recipe = tiny_recipe(dataset)
    prepare(recipe.data_settings, lambda progress: None)
    return dataset


@pytest.fixture(scope="session")
def phrasebook_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The English sentences of the phrase book, prepared as documents."""
    from support.tasks import language_model_values

    from cluster.recipe import Recipe
    from data_pipeline.preparation.prepare import prepare

    dataset = tmp_path_factory.mktemp("documents") / "dataset"
    prepare(Recipe.of(language_model_values(dataset)).data_settings, lambda progress: None)
    return dataset


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory: pytest.TempPathFactory, phrasebook: Path) -> Any:
    """A run with two checkpoints of untrained weights, made without training."""
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
    """Runs of a tiny recipe on the phrase book."""
    return _runs(tmp_path, phrasebook, ray_head.address)


@pytest.fixture
def inline_runs(tmp_path: Path, phrasebook: Path) -> Any:
    """Runs of a tiny recipe on the phrase book, to be trained without Ray."""
    return _runs(tmp_path, phrasebook, address="")


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Settings of a notification, and the file in which its command leaves the messages."""
    messages = tmp_path / "messages"
    command = ["/bin/sh", "-c", f"cat >> {messages}; echo >> {messages}"]
    monkeypatch.setenv("TRANSLOOM_TEST_COMMAND", json.dumps(command))
    targets = "{targets: [{command_from: TRANSLOOM_TEST_COMMAND}]}"
    return f"tracking.notify={targets}", messages


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, phrasebook: Path, ray_head: Any) -> Any:
    """A run of the tiny recipe that nothing happens to: 60 steps on two ranks, of that name.

    It is validated at steps 30 and 60.
    """
    runs = _runs(tmp_path_factory.mktemp("undisturbed"), phrasebook, ray_head.address)
    validated = "trainer.validate_every_steps=30"
    runs.train("undisturbed", "cluster.ranks=2", "trainer.max_steps=60", validated)
    return runs


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory: pytest.TempPathFactory, phrasebook: Path) -> Any:
    """The same run by one rank without Ray; its name is "one-rank"."""
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
    """No extension is loaded and no folder of them set; modules ext_… are forgotten afterwards."""
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
    """Return the id of a process that this one may not send signals to, for any user."""
    if os.geteuid() != 0:
        yield 1  # init is root's
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
    """Fork the processes of a `process_pool` from one with torch, instead of importing it in each.

    That process is a child of this one from now on.
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
    """Rank processes by world size, started when first asked for."""
    from support.ranks.rank_pool import RankPool

    pools: dict[int, RankPool] = {}

    def pool(world_size: int) -> RankPool:
        if world_size not in pools:
            pools[world_size] = RankPool(world_size)
        return pools[world_size]

    yield pool
    for started in pools.values():
        started.close()
