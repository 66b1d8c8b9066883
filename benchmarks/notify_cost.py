"""Cost of notifications for a run's speed: three bad servers against no notifications.

Two trainings of the same recipe take turns: while one trains, the other is stopped by SIGSTOP. One
has three webhooks, which never answer, always answer 503, and answer a byte at a time. Each
validation with a better loss is a notification to all of them, which is repeated and kept in
queues. The other training has no targets.

A window is a number of steps with the same number of validations. Two neighbouring windows, one of
each training, are a pair, and the order within pairs alternates. The figure is the median of the
pairs' ratios of time, with the interval that contains the true median with 96 % (the 6th to the
15th of 20 ratios).

    .venv/bin/python benchmarks/notify_cost.py [--pairs N] [--steps N] [KEY=VALUE …]
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from benchmarks.support.command_line import parse_arguments
from benchmarks.support.trainings import has_ended, running, say
from cluster.recipe import find_recipe, load_recipe
from data_pipeline.preparation.prepare import prepare
from trainer.errors import TrainerError
from trainer.record.metrics_file import train_lines
from trainer.record.metrics_lines import TrainLine

TRANSLOOM = str(Path(sys.executable).parent / "transloom")
START_SECONDS = 300.0
POLL_SECONDS = 0.05
NEVER = 10_000_000
SHORT_TRANSLATIONS = ["decoding.max_length_factor=0.2", "decoding.max_extra_length=2"]
KINDS = ("HANG", "FAIL", "SLOW")


class BadServer:
    """Server of three webhooks: /HANG never answers, /FAIL answers 503, /SLOW a byte at a time."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys(KINDS, 0)
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {f"TRANSLOOM_{kind}_URL": f"{url}/{kind}" for kind in KINDS}

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state: BadServer

    def do_POST(self) -> None:
        state, kind = self.server_state, self.path.strip("/")
        state.requests[kind] += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = True
        try:
            if kind == "FAIL":
                self.send_error(503)
            elif kind == "HANG":
                state.closing.wait()
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
                while not state.closing.wait(0.1):
                    self.wfile.write(b"x")
        except OSError:
            return  # the client has given up

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@dataclass
class Run:
    """Training that continues until it is ended."""

    folder: Path
    overrides: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        run = str(self.folder / "run")
        return [TRANSLOOM, "train", "phrasebook", *self.overrides, "--inline", "--run", run]

    def lines(self) -> list[TrainLine]:
        try:
            return train_lines(self.folder / "run" / "metrics.jsonl")
        except TrainerError:
            return []  # it has not begun


@dataclass
class Contestant:
    """Training that is stopped except in its windows."""

    run: Run
    driver: psutil.Process

    def wait_for_step(self, step: int) -> list[TrainLine]:
        """Return the train lines once there is one of this step."""
        deadline = time.monotonic() + START_SECONDS
        while not (lines := self.run.lines()) or lines[-1].step < step:
            if has_ended(self.driver) or time.monotonic() > deadline:
                output = (self.run.folder / "output.txt").read_text(errors="replace")
                sys.exit(f"step {step} was not reached\n{output[-4000:]}")
            time.sleep(POLL_SECONDS)
        return lines

    def window(self, steps: int) -> float:
        """Return the seconds of the next steps."""
        first = self.run.lines()[-1].step + 2  # the next step was interrupted
        self.driver.resume()
        lines = self.wait_for_step(first + steps)
        self.driver.suspend()
        times = {line.step: line.time for line in lines}
        return times[first + steps] - times[first]


@contextmanager
def contestants(runs: dict[str, Run]) -> Iterator[dict[str, Contestant]]:
    """Start the trainings one after another, and stop each after its first steps."""
    with running(runs["without"]) as first, running(runs["with"]) as second:
        found = {
            "without": Contestant(runs["without"], first),
            "with": Contestant(runs["with"], second),
        }
        for contestant in found.values():
            contestant.wait_for_step(10)
            contestant.driver.suspend()
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="of each window")
    parser.add_argument("--validate-every", type=int, default=10, help="a divisor of --steps")
    parser.add_argument("overrides", nargs="*")
    arguments = parse_arguments(
        parser,
        smoke="--pairs 1 --steps 4 --validate-every 2 batching.max_tokens_per_micro_batch=64 "
        "data.dataset={folder}/dataset model.width=32 tracking.wandb=disabled",
    )
    overrides = [
        "batching.max_tokens_per_micro_batch=256",  # several steps a second
        *SHORT_TRANSLATIONS,
        *arguments.overrides,
        f"trainer.max_steps={NEVER}",
        f"trainer.validate_every_steps={arguments.validate_every}",
        f"checkpoints.every_steps={NEVER}",
    ]
    targets = ", ".join(f"{{kind: webhook, url_from: TRANSLOOM_{kind}_URL}}" for kind in KINDS)
    notify = f"tracking.notify={{targets: [{targets}], events: [best_score]}}"
    prepare(load_recipe(find_recipe("phrasebook"), overrides).data_settings, lambda progress: None)
    ratios = []
    server = BadServer()
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in ("without", "with")}
        for folder in folders.values():
            folder.mkdir()
        runs = {
            "without": Run(folders["without"], overrides),
            "with": Run(folders["with"], [*overrides, notify], server.environment),
        }
        with contestants(runs) as taking_turns:
            for pair in range(arguments.pairs):
                order = ("without", "with") if pair % 2 else ("with", "without")
                seconds = {name: taking_turns[name].window(arguments.steps) for name in order}
                ratios.append(seconds["with"] / seconds["without"])
                say(
                    f"pair {pair + 1}: without {seconds['without']:.2f} s, with "
                    f"{seconds['with']:.2f} s, ratio {ratios[-1]:.4f}, load "
                    f"{os.getloadavg()[0]:.1f}, requests {server.requests}"
                )
        lost = (folders["with"] / "run" / "log.txt").read_text().count("could not be delivered")
    server.close()
    ordered = sorted(ratios)
    reach = len(ordered) * 5 // 20  # from the 6th to the 15th of 20
    low, high = ordered[reach], ordered[len(ordered) - 1 - reach]
    counts = ", ".join(f"{kind} {count}" for kind, count in server.requests.items())
    print(
        f"notifications to three bad servers cost {statistics.median(ratios) - 1:.2%} of a run's "
        f"time (median of {len(ratios)} pairs of {arguments.steps} steps; {low - 1:.2%} to "
        f"{high - 1:.2%}); requests: {counts}; {lost} notices of lost notifications"
    )


if __name__ == "__main__":
    main()
