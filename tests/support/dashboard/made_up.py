"""Responses of a dashboard about invented runs: a spike, events, untrusted texts."""

import math
from typing import Any

from run_store.record.curve_points import COLUMNS
from transloom.observe.dashboard.api_models import FactsResponse

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
SPIKE_FIELDS = 137


def loss_at(step: int, seed: int) -> float:
    """Return a loss that falls with noise and a spike."""
    wobble = 0.15 * math.sin(step * 12.9898 + seed * 78.233) + 0.1 * math.sin(step * 0.37 + seed)
    spike = 2.5 if step == SPIKE_FIELDS and seed == 0 else 0.0
    return 1.1 + 6.5 * math.exp(-step / (60 + 25 * seed)) + wobble + spike


def steps_between(first: int, last: int, seed: int = 0, every: int = 1) -> dict[str, list[Any]]:
    """Return the columns of these steps."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for step in range(first, last + 1, every):
        loss = loss_at(step, seed)
        seconds = 0.24 + 0.03 * math.sin(step) + 0.04 * seed
        norm = 0.4 + 2 * math.exp(-step / 40) + (3.1 if loss > 3 and step == SPIKE_FIELDS else 0)
        values = {
            "step": step,
            "time": 1_795_297_000 + step * 0.26,
            "target_tokens_seen": step * 1720,
            "wall_seconds": step * 0.28 + (30 if step > 200 else 0) + 4,
            "counted_seconds": step * 0.245,
            "loss": loss,
            "nll": loss - 0.8,
            "learning_rate": 0.003 * min(step / 100, (100 / step) ** 0.5),
            "grad_norm": norm,
            "target_tokens_per_second": 1720 / seconds,
            "step_seconds": seconds,
            "tflops_per_second": 3.5 / seconds,
            "mfu": 0.1 / seconds,
            "data_stall_seconds": 0.002 + (0.4 if step % 100 == 1 else 0),
            "checkpoint_stall_seconds": 0.05 if step % 150 == 0 else 0.0,
            "world_size": 2 if step < 200 else 3,
            "goodput": 0.87,
            "compute_seconds_min": 0.8 * seconds,
            "compute_seconds_median": 0.85 * seconds,
            "compute_seconds_max": (1.6 if step > 250 else 0.95) * seconds,
            "compute_slowest_rank": 2,
            "wait_seconds": (0.5 if step > 250 else 0.1) * seconds,
            "data_stall_seconds_max": 0.01,
            "data_slowest_rank": 1,
            "loss_min": loss - 0.2,
            "loss_max": loss + 0.3,
            "grad_norm_max": norm + 0.2,
        }
        for name in COLUMNS:
            columns[name].append(values.get(name))
    return columns


def scores_at(step: int, seed: int) -> dict[str, Any]:
    done = 1 - math.exp(-step / (140 + 40 * seed))
    return {
        "loss": {"value": 7.0 - 6.4 * done, "more_is_better": False},
        "perplexity": {"value": math.exp(7.0 - 6.4 * done), "more_is_better": False},
        "bleu": {"value": 96.0 * done, "more_is_better": True},
    }


def row(name: str, seed: int, steps: int, state: str) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "id": f"id-{seed}",
        "name": name,
        "standing": {
            "name": name,
            "path": f"runs/{name}",
            "state": state,
            "reason": None,
            "step": steps,
            "max_steps": 600,
            "scores": scores_at(steps, seed),
            "scores_step": steps - steps % 75,
            "best": {"bleu": {"value": 91.2, "step": 75}},
            "best_since_step": 1,
            "numbers": {
                "loss": loss_at(steps, seed),
                "nll": loss_at(steps, seed) - 0.8,
                "target_tokens_per_second": 6800.0 - 300 * seed,
                "tflops_per_second": 14.0,
                "mfu": 0.412,
                "wait_seconds": 0.1,
            },
            "loss_unit": "target token",
            "seconds_left": (600 - steps) * 0.26 if state == "training" else None,
            "owner": {
                "host": "node-1",
                "process": 4242,
                "since": "2026-11-21T21:49:10.541+00:00",
                "silent_seconds": 1.0,
            },
            "ranks": 3,
            "nodes": {"node-1": 2, "node-2": 1},
            "checkpoint": f"runs/{name}/checkpoints/step-00000300",
            "checkpoint_step": 300,
            "slow_ranks": [
                {"rank": 2, "node": "node-2", "cause": "compute", "factor": 1.88},
            ]
            if state == "training"
            else [],
            "notices": [],
            "problems": [],
            "settings": {
                "seed": seed,
                "model.width": 128,
                "model.dropout": [0.1, 0.3, 0.1, 0.2][seed % 4],
                "trainer.max_steps": 600,
                "data.tag": HOSTILE if seed == 1 else None,
            },
            "checkpoints": [
                {"step": 150, "state": "complete", "bytes": 10_800_000, "time": 1_795_297_040.0}
                | {"scores": scores_at(150, seed)},
                {"step": 300, "state": "writing", "bytes": None, "time": None, "scores": {}},
            ],
            "vitals": vitals(steps),
        },
    }


def vitals(last: int) -> dict[str, Any]:
    return {
        "time": 1_795_297_100.0,
        "attempt": 2,
        "over": False,
        "checkpoint_being_written": None,
        "ranks": [
            {"rank": r, "node": f"node-{1 + r // 2}", "phase": "step", "step": last}
            | {"silent_seconds": 0.4}
            for r in range(3)
        ],
        "data_workers": [
            {"number": 0, "node": "node-1", "alive": True, "windows_read": 6}
            | {"silent_seconds": 1.0}
        ],
        "restarts": [{"time": 1_795_297_050.0, "cause": "rank 1 died: signal 9"}],
    }


def details(its_row: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the response to /api/runs/ID."""
    last = its_row["standing"]["step"]
    words = {
        "skipped": "not applied: slot 3 of rank 1 was not finite",
        "preempted": "SIGTERM was received: the ranks left after a checkpoint",
        "resumed": "2 ranks have started again, from step 150",
        "resized": "goes on with 3 ranks instead of 2",
        "slow_rank": "Slow: rank 2 on node-2 needs 1.88 times as long as the others",
    }
    marks = [(151, "resumed"), (SPIKE_FIELDS - 20, "skipped"), (200, "resized"), (300, "preempted")]
    marks += [(280, "slow_rank")]
    return its_row | {
        "card": {
            "id": "c4104faa",
            "name": its_row["name"],
            "dataset_identity": "99e4d743a181810e72919afb106c97009c962acdaffae5b2811fc8a1e6de83aa",
            "identity": {},
            "parent": None,
        },
        "events": [
            {"step": step, "event": event, "words": words[event], "details": {}}
            for step, event in sorted(marks)
            if step <= last and seed != 2
        ],
        "validations": [
            {"step": step, "scores": scores_at(step, seed)} for step in range(75, last + 1, 75)
        ],
        "samples": [
            {"source": "je suis étudiant", "reference": "i am a student"}
            | {"translation": "i am a student"},
            {"source": HOSTILE, "reference": "‮neddih", "translation": "\x1b]0;hi\x07"},
        ],
        "log": [
            {"time": "2026-11-21T21:49:10.541+00:00", "text": "starting 2 ranks"},
            {"time": "2026-11-21T21:50:06.032+00:00", "text": "checkpoint of step 150 is complete"},
        ],
        "cleaning": {
            HOSTILE: {"read": 28_015, "kept": 28_000, "dropped": {"empty": 12, "too_long": 3}}
        },
        "environment": {"versions": {"torch": "2.13.0", "ray": "2.60.0"}, "commit": "c8ff302"},
        "commands": [f"transloom train phrasebook seed={seed} --run runs/{its_row['name']}"],
    }


def nodes() -> dict[str, Any]:
    times = [1_795_297_000.0 + 30 * n for n in range(40)]
    usage = {
        "time": times,
        "cpu_percent": [80 + 10 * math.sin(n) for n in range(40)],
        "memory_used_bytes": [int(9e9 + 1e8 * n) for n in range(40)],
        "memory_bytes": [32 * 2**30] * 40,
        "gpus": [],
    }
    return {"thinned": False, "problem": None, "nodes": {"node-1": usage, "node-2": usage}}


def of_task(made: dict[str, Any], number: int, task: str, loss_unit: str | None) -> None:
    """Change the task of a run in the responses that `answers` returns."""
    its_row = made["/api/runs"]["runs"][number]
    its_row["standing"]["settings"]["task"] = task
    its_row["standing"]["loss_unit"] = loss_unit


def answers(runs: int = 3, steps: int = 420, every: int = 1) -> dict[str, Any]:
    """Return responses by path; the first of the runs is training."""
    names = ["phrasebook", "phrasebook,model.dropout=0.3", f"run {HOSTILE}", "phrasebook,seed=3"]
    made: dict[str, Any] = {"/api/facts": FactsResponse().model_dump(mode="json")}
    rows = []
    for seed in range(runs):
        name = names[seed] if seed < len(names) else f"phrasebook,seed={seed}"
        last = max(80, steps - 40 * seed)
        its_row = row(name, seed, last, "training" if seed == 0 else "finished")
        rows.append(its_row)
        path = f"/api/runs/{its_row['id']}"
        made[path] = details(its_row, seed)
        made[f"{path}/curves"] = {
            "thinned": every > 1,
            "steps_recorded": last,
            "bytes_read": 1000,
            "problem": None,
            "columns": steps_between(1, last, seed, every),
        }
        made[f"{path}/nodes"] = nodes()
    made["/api/runs"] = {"folder": "runs", "problems": [], "runs": rows}
    return made
