"""Stage *path*: run the commands on the device, from preparing a dataset to serving.

prepare ─▶ train under Ray ─▶ kill -9, resume ─▶ evaluate ─▶ translate ─▶ serve

All runs use exact numerics, so that a run that was killed must repeat every bit. Each row creates
the inputs that it needs, unless an earlier row has created them, perhaps in another process.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from benchmarks.gpu_check.outcomes import (
    CannotRunError,
    Measurement,
    Work,
    WrongResultError,
    within,
)
from benchmarks.gpu_check.runner import MARK
from benchmarks.serving import server
from data_pipeline.storage.phrasebook import phrasebook_pairs
from run_store.record.metrics_file import read_metrics, train_lines
from run_store.record.metrics_lines import TrainLine, ValidationLine
from transloom import ServedTranslator
from transloom.cli.sweep_runs import TRANSLOOM
from transloom.inference.translator import Translator

STEPS = {"cuda": 120, "cpu": 40}
KILL_AT = (15, 25)  # steps after which a rank and then the driver are killed
SENTENCES = {"cuda": 200, "cpu": 20}
SAME_AT_LEAST = 0.9  # share of translations: near ties may be decided differently on another device
# Greedy and short translations, because a network of few training steps seldom ends a sentence.
QUICK = ["decoding.beam_size=1", "decoding.max_extra_length=1"]
SMALL = ["model.width=32", "model.feed_forward_width=64", "model.encoder_layers=1"]
POLL_SECONDS = 0.05


def command(*words: object) -> list[str]:
    """Return a transloom command that uses this Python."""
    return [*TRANSLOOM, *map(str, words)]


def work_of_path(work: Work) -> Work:
    """Return the work of this stage for a row of another stage that uses its dataset and run.

    Its folder may already contain them.
    """
    of_path = Work(work.device, work.folder.parent / "path")
    of_path.folder.mkdir(exist_ok=True)
    return of_path


def transloom(work: Work, *words: object, may_find_problems: bool = False) -> str:
    """Run a transloom command to its end, and return its output.

    Args:
        may_find_problems: whether the command's exit code may report a problem that its output
            describes.

    Raises:
        WrongResultError: the command failed; its output is in the log.
    """
    done = subprocess.run(command(*words), cwd=work.folder, capture_output=True, text=True)
    print(done.stdout, done.stderr, flush=True)
    if done.returncode and not (may_find_problems and done.stdout):
        said = (done.stderr or done.stdout).strip().splitlines()
        raise WrongResultError(
            f"transloom {words[0]} ended with exit code {done.returncode}: "
            f"{said[-1] if said else 'no output'}"
        )
    return done.stdout


def ranks_of(work: Work) -> int:
    """Return the number of ranks: two on a machine with two or more GPUs, otherwise one."""
    return min(2, torch.cuda.device_count()) if work.is_gpu else 1


def settings(work: Work) -> list[str]:
    """Return the overrides of the recipe for runs on the device."""
    steps = STEPS[work.device]
    return [
        f"data.dataset={work.folder / 'dataset'}",
        f"cluster.ranks={ranks_of(work)}",
        f"cluster.gpus_per_rank={int(work.is_gpu)}",
        "cluster.node_usage_seconds=1",
        "engine.numerics=exact",
        f"trainer.max_steps={steps}",
        f"trainer.validate_every_steps={steps}",
        "checkpoints.every_steps=10",
        "tracking.wandb=disabled",
        *QUICK,
        *([] if work.is_gpu else SMALL),
    ]


def prepare(work: Work) -> Measurement:
    started = time.monotonic()
    if not (work.folder / "dataset").exists():
        transloom(work, "prepare", "phrasebook", *settings(work))
    return Measurement(time.monotonic() - started, "s")


def run_of(work: Work) -> Path:
    """Return an uninterrupted run under Ray; train it if it does not exist yet."""
    prepare(work)
    run = work.folder / "whole"
    if len(steps_of(run)) < STEPS[work.device]:
        transloom(work, "train", "phrasebook", "--run", run, *settings(work))
    return run


def steps_of(run: Path) -> list[TrainLine]:
    return train_lines(run / "metrics.jsonl")


def train(work: Work) -> Measurement:
    """Train under Ray, with validation on the device."""
    run = run_of(work)
    lines = steps_of(run)
    if lines[-1].loss >= lines[0].loss:
        raise WrongResultError(
            f"the loss did not fall: it was {lines[0].loss:.3f} at first, and "
            f"{lines[-1].loss:.3f} at the end"
        )
    scores = [
        line for line in read_metrics(run / "metrics.jsonl") if isinstance(line, ValidationLine)
    ]
    if not scores:
        raise WrongResultError("metrics.jsonl has no validation")
    speeds = sorted(line.target_tokens_per_second for line in lines)
    return Measurement(
        speeds[len(speeds) // 2],
        "target tokens/s",
        f"loss {lines[0].loss:.2f} to {lines[-1].loss:.2f} in {len(lines)} steps",
    )


def killed(work: Work) -> Measurement:
    """Kill a rank and then the driver with `kill -9`, restart, and compare every loss."""
    expected = [line.loss for line in steps_of(run_of(work))]
    run = work.folder / "killed"
    with _Training(work, run) as training:
        training.wait_for_step(KILL_AT[0])
        training.kill_rank()
        training.wait_for_step(KILL_AT[1])
        training.kill()
    transloom(work, "train", "phrasebook", "--run", run, *settings(work))
    found = [line.loss for line in steps_of(run)]
    differ = sum(a != b for a, b in zip(found, expected, strict=True))
    return within(float(differ), 0.0, f"of {len(expected)} losses differ")


class _Training:
    """Training in the background, whose processes are all killed at the end."""

    def __init__(self, work: Work, run: Path) -> None:
        shutil.rmtree(run, ignore_errors=True)  # remove the run of an earlier attempt
        self._run = run
        self._output = (work.folder / f"{run.name}.txt").open("ab")
        self._process = subprocess.Popen(
            command("train", "phrasebook", "--run", run, *settings(work)),
            cwd=work.folder,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> "_Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._output.close()

    def wait_for_step(self, step: int) -> None:
        """Wait until the metrics file has the step.

        Raises:
            WrongResultError: the training ended before the step.
        """
        while len(steps_of(self._run)) < step:
            if self._process.poll() is not None:
                raise WrongResultError(
                    f"the training ended with exit code {self._process.returncode} before step "
                    f"{step}; see {self._output.name}"
                )
            time.sleep(POLL_SECONDS)

    def kill_rank(self) -> None:
        ranks = list(ranks_of_this_check())
        if not ranks:
            raise WrongResultError("no process of a rank was found")
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


def ranks_of_this_check() -> list[psutil.Process]:
    """Return the processes of the ranks and spares that this stage has started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            title = " ".join(process.cmdline())
            if title.startswith("ray::RankActor") and (
                process.environ().get(MARK) == os.environ.get(MARK)
            ):
                found.append(process)
    return found


def node_usage(work: Work) -> Measurement:
    """Check the samples of the GPUs in nodes.jsonl."""
    text = (run_of(work) / "nodes.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    gpus = [gpu for line in lines for gpu in line["gpus"]]
    if not work.is_gpu:
        return Measurement(float(len(lines)), "samples")
    if not gpus:
        raise WrongResultError(f"none of the {len(lines)} samples in nodes.jsonl has a GPU")
    used = max(gpu["memory_used_bytes"] for gpu in gpus)
    if not 0 < used <= gpus[0]["memory_bytes"]:
        raise WrongResultError(
            f"nodes.jsonl reports {used} bytes in use on a GPU with {gpus[0]['memory_bytes']} bytes"
        )
    return Measurement(used / 2**30, "GiB in use", f"{len(lines)} samples")


def one_context(work: Work) -> Measurement:
    """Check that each GPU has one process per rank during training, and none for spares."""
    if not work.is_gpu:
        raise CannotRunError("a CPU has no CUDA contexts")
    prepare(work)
    before = _contexts()
    with _Training(work, work.folder / "contexts") as training:
        training.wait_for_step(5)
        made = _contexts() - before
    if not made:
        raise CannotRunError("nvidia-smi shows no processes, which happens in some containers")
    ranks, gpus = ranks_of(work), len({gpu for _, gpu in made})
    if gpus != ranks:
        raise WrongResultError(f"{ranks} ranks use {gpus} GPUs, expected {ranks}")
    return within(float(len(made)), float(ranks), "processes on GPUs")


def _contexts() -> set[tuple[str, str]]:
    """Return a pair of process and GPU for each CUDA context."""
    query = ["nvidia-smi", "--query-compute-apps=pid,gpu_uuid", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    return {(pid, gpu.strip()) for pid, _, gpu in (line.partition(",") for line in lines)}


def evaluate(work: Work) -> Measurement:
    """Score the run on its test set; `transloom evaluate` computes on the CPU."""
    found = json.loads(transloom(work, "evaluate", run_of(work), "--beam-size", 1, "--json"))
    (test_set,) = found
    return Measurement(test_set["bleu"]["score"], "BLEU", f"{test_set['sentences']} sentences")


def sources(work: Work) -> list[str]:
    return [source for source, _ in phrasebook_pairs("validation")][: SENTENCES[work.device]]


def _same(found: list[str], expected: list[str]) -> Measurement:
    """Require that nearly all translations are equal to those of the CPU."""
    share = sum(map(str.__eq__, found, expected)) / len(expected)
    if share < SAME_AT_LEAST:
        raise WrongResultError(f"expected at least {SAME_AT_LEAST}", share, "same as on the CPU")
    return Measurement(share, "same as on the CPU", f"{len(expected)} sentences")


def _translations(work: Work, device: str) -> list[str]:
    translator = Translator.load(run_of(work), device=device)
    return translator.translate(sources(work))


def translate(work: Work) -> Measurement:
    return _same(_translations(work, work.device), _translations(work, "cpu"))


def translate_on_cluster(work: Work) -> Measurement:
    """Translate a file with a Ray actor on the device."""
    run, given = run_of(work), work.folder / "sentences.txt"
    output = work.folder / "translated.txt"
    given.write_text("".join(f"{sentence}\n" for sentence in sources(work)))
    output.unlink(missing_ok=True)
    transloom(
        *(work, "translate", run, given, "--output", output, "--on-cluster", "--actors", 1),
        *("--gpus-per-actor", int(work.is_gpu)),
    )
    return _same(output.read_text().splitlines(), _translations(work, "cpu"))


def serve(work: Work) -> Measurement:
    """Request the translations from a server whose replicas compute on the CPU."""
    os.chdir(work.folder)
    with server(run_of(work), 1) as address:
        found = ServedTranslator(address).translate(sources(work))
    return _same(found, _translations(work, "cpu"))
