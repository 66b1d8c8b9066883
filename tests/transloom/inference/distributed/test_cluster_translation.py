"""`transloom translate --on-cluster` on a real Ray cluster; actors and drivers are killed."""

import os
import signal
from pathlib import Path

import pytest
from ray.util.state import list_actors
from support.command import run_python
from support.invocation import invoke

from cluster.errors import ClusterError
from data_pipeline.errors import CorpusError
from transloom.inference import translate
from transloom.inference.distributed import cluster_translation
from transloom.inference.distributed.chunk_store import ChunkStore

LINES_PER_CHUNK = 3
SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non", "il est là"] * 3
# A driver that kills itself before it stores its second chunk.
KILLED_DRIVER = """
import os, signal, sys
from transloom.inference.distributed import cluster_translation
from transloom.inference.distributed.chunk_store import ChunkStore
cluster_translation.SENTENCES_AT_ONCE = 3
keep, kept = ChunkStore.keep, []
def keep_one(self, number, lines):
    if kept:
        os.kill(os.getpid(), signal.SIGKILL)
    kept.append(number)
    keep(self, number, lines)
ChunkStore.keep = keep_one
from transloom.cli.app import main
main()
"""
# A driver that kills its private Ray after it has stored its first chunk.
DRIVER_WITHOUT_RAY = """
import psutil, time
from transloom.inference.distributed import cluster_translation
from transloom.inference.distributed.chunk_store import ChunkStore
cluster_translation.SENTENCES_AT_ONCE = 3
keep = ChunkStore.keep
def keep_one(self, number, lines):
    ChunkStore.keep = keep
    keep(self, number, lines)
    (raylet,) = [p for p in psutil.Process().children(recursive=True) if p.name() == "raylet"]
    raylet.kill()
    while raylet.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
ChunkStore.keep = keep_one
from transloom.cli.app import main
main()
"""


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(cluster_translation, "SENTENCES_AT_ONCE", LINES_PER_CHUNK)
    monkeypatch.setattr(translate, "SENTENCES_AT_ONCE", LINES_PER_CHUNK)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    return path


@pytest.fixture
def command(untrained_run, file, ray_head, tmp_path):
    """Return the arguments of a translation on the cluster by an ensemble of one run twice."""
    to = ["--on-cluster", "--output", tmp_path / "out.txt", "--address", ray_head.address]
    run = untrained_run.path
    return ["translate", run, run, file, *to, "--cpus-per-actor", 0.5]


@pytest.fixture
def expected(untrained_run, file):
    run = untrained_run.path
    return invoke("translate", run, run, file, "--processes", 1).stdout


def running_actors(address):
    """Return the process id of each translating actor of a cluster."""
    wanted = [("class_name", "=", "LineTranslator"), ("state", "=", "ALIVE")]
    return [actor.pid for actor in list_actors(address, filters=wanted)]


@pytest.mark.proof
def test_the_output_equals_that_of_the_local_command_if_an_actor_is_killed(
    command, expected, tmp_path, ray_head, monkeypatch
):
    killed = []
    keep = ChunkStore.keep

    def keep_and_kill(self, number, lines):
        keep(self, number, lines)
        if not killed:  # both actors still have chunks to translate
            killed.extend(running_actors(ray_head.address))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(ChunkStore, "keep", keep_and_kill)
    invoke(*command, "--actors", 2)
    assert len(killed) == 2
    assert (tmp_path / "out.txt").read_text() == expected
    assert not (tmp_path / "out.txt.work").exists()
    with pytest.raises(ClusterError):
        invoke(*command)


def test_a_repeated_command_continues_after_loss_of_ray_and_a_kill(
    command, expected, tmp_path, monkeypatch
):
    """Each failed attempt, first on a private Ray and then on the cluster, stores one chunk."""
    alone = [*command, "--actors", 1]
    at = alone.index("--address")
    lost = end_of(DRIVER_WITHOUT_RAY, [*alone[:at], *alone[at + 2 :]])
    assert lost.returncode == 1, lost.stderr
    assert "Ray is lost on this machine: start the same command again" in " ".join(
        lost.stderr.split()
    )
    killed = end_of(KILLED_DRIVER, alone)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "out.txt").exists()
    with pytest.raises(ClusterError, match=r"decoding beam_size 4, .* → beam_size 2, "):
        invoke(*alone, "--beam-size", 2)

    kept = []
    keep = ChunkStore.keep
    monkeypatch.setattr(
        ChunkStore, "keep", lambda self, n, lines: (kept.append(n), keep(self, n, lines))
    )
    invoke(*alone)
    assert len(kept) == len(SENTENCES) // LINES_PER_CHUNK - 2
    assert (tmp_path / "out.txt").read_text() == expected


def end_of(program, arguments):
    """Run a driver until it ends, and return the finished process."""
    return run_python(program, *arguments, cwd=Path(__file__).parents[4])


def test_too_long_lines_are_reported_before_any_file_is_written(command, file, tmp_path):
    file.write_text("non\n" + "non " * 500 + "\n")
    with pytest.raises(CorpusError, match=r"line 2 \(.* tokens\) cannot be translated"):
        invoke(*command)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--on-cluster"], "only one of --on-cluster and --output"),
        (["--output", "out"], "only one of --on-cluster and --output"),
        (["--on-cluster", "--output", "out", "--processes", "2"], "nor --processes"),
    ],
)
def test_translate_on_cluster_refuses_incompatible_options(untrained_run, options, problem):
    told = invoke("translate", untrained_run.path, "file", *options, code=2).output
    assert problem in " ".join(told.replace("│", " ").split())


def test_translate_on_cluster_refuses_standard_input(untrained_run, tmp_path):
    options = ["--on-cluster", "--output", tmp_path / "out"]
    with pytest.raises(ClusterError, match="name a file"):
        invoke("translate", untrained_run.path, *options)
