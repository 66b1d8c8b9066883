"""No command executes code that a run's folder contains.

Every command needs a case here or an entry in `WITHOUT_RUN`.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from support.announced import install
from support.command import transloom as in_a_process
from support.dashboard.running import RunningDashboard
from support.launchers.job_records import a_record
from support.recipes import SHORT_TRANSLATIONS
from support.records.checkpoints import header_of, rewrite_header
from support.records.lines import train_line
from typer.testing import CliRunner

from cluster.launchers.ray_job.job_record import JobFolder
from foundation import extensions
from foundation.extensions import FOLDER_VARIABLE, load_extensions
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.scores import scores_of
from transloom.cli.app import app

NAME = "ext_theirs"


@dataclass(frozen=True)
class Case:
    """A command on a run.

    Attributes:
        words: the command line. RUN is replaced by the run, RUNS by its parent folder, MINE by a
            recipe of the user, OUT by a path that does not exist, LINES by a file of sentences,
            and BUCKET by the URL of a bucket.
        asks: the first of `KINDS` for which the command refuses the run until the user names the
            extension's folder; None if the command never requires this.
        refusal: part of a different message with which the command refuses the run, or None.
        own_process: whether the command changes signal handlers or its process's priority.
    """

    words: str
    asks: str | None = None
    refusal: str | None = None
    own_process: bool = False

    @property
    def command(self) -> str:
        first, second = self.words.split()[:2]
        return f"{first} {second}" if first in GROUPS else first


# Places where a run names its extension: only the recipe, or the recipe and the checkpoints.
RECIPE, CHECKPOINTS = KINDS = ("recipe", "checkpoints")
GROUPS = ("data", "checkpoints", "model", "jobs", "deploy", "runs")
OTHER_TASK = "was trained for translation"
OTHER_RUN = "extensions.ext_theirs"
CASES = [
    Case("replay RUN --steps 1", RECIPE),
    Case("data trace RUN --steps 1", RECIPE),
    Case("model show RUN", RECIPE),
    Case("jobs retry RUN --address http://127.0.0.1:9", RECIPE),
    Case("evaluate RUN --processes 1", CHECKPOINTS),
    Case("tune-decoding RUN --checkpoints best,last:2 --beam-sizes 1 --processes 1", CHECKPOINTS),
    Case("translate RUN LINES --beam-size 1", CHECKPOINTS),
    Case("explain RUN oui --output OUT", CHECKPOINTS),
    Case("export RUN OUT", CHECKPOINTS),
    Case("answer-lines RUN", CHECKPOINTS),
    Case("generate RUN", CHECKPOINTS, OTHER_TASK),
    Case("fill RUN oui", CHECKPOINTS, OTHER_TASK),
    Case("embed RUN oui", CHECKPOINTS, OTHER_TASK),
    Case("classify RUN oui", CHECKPOINTS, OTHER_TASK),
    Case("status RUN"),
    Case("stop RUN"),
    Case("workers RUN 2"),
    Case("watch RUN --json", own_process=True),
    Case("runs list RUNS"),
    Case("runs push RUN BUCKET/run"),
    Case("runs record RUN"),
    Case("metrics RUN"),
    Case("report RUN -o OUT"),
    Case("export-metrics RUN --to csv -o OUT"),
    Case("compare RUN RUN"),
    Case("checkpoints list RUN"),
    Case("checkpoints verify RUN"),
    Case("checkpoints prune RUN --dry-run"),
    Case("checkpoints average RUN --best 1"),
    Case("jobs status RUN"),
    Case("jobs logs RUN"),
    Case("jobs stop RUN"),
    Case("train MINE --inline --run RUN", None, OTHER_RUN, own_process=True),
    Case("plan MINE --run RUN", None, OTHER_RUN),
    Case("plan MINE --run OUT --from RUN"),
    Case("plan MINE --run OUT trainer.init_from=RUN"),
]
# Commands that read only checkpoints. They are not tested with a run whose recipe alone names an
# extension, because they would accept this run and take long.
LONG = [
    Case("serve RUN", CHECKPOINTS, own_process=True),
    Case("translate RUN LINES --on-cluster --output OUT", CHECKPOINTS),
    Case("compare RUN@1 RUN@2 --test phrasebook", CHECKPOINTS),
]
# Commands that read no run: they take recipes that the user names, datasets, jobs of a cluster or
# nodes. If they resume a run, they read the same files as `train` and `plan`.
WITHOUT_RUN = {
    *("demo", "recipes", "init", "fields", "extensions", "prepare", "sweep", "submit", "import"),
    *("notify", "verify-zero"),
    *("data info", "data verify", "data quarantine", "jobs list"),
    *("deploy slurm", "deploy kubernetes", "deploy slurm-node"),
    *("deploy mirror-folder", "runs pull"),  # copies bytes without reading them, like `runs push`
}
BY_THE_DASHBOARD = {"dashboard"}


def all_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from all_commands(inner, (*words, name))
    else:
        yield " ".join(words)


def test_every_command_has_a_case_or_reads_no_run():
    covered = {case.command for case in (*CASES, *LONG)} | BY_THE_DASHBOARD
    assert covered | WITHOUT_RUN == set(all_commands(typer.main.get_command(app)))
    assert not covered & WITHOUT_RUN


@dataclass(frozen=True)
class Theirs:
    """A folder that contains a run of another user."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "theirs"

    @property
    def code(self) -> Path:
        return self.run / "code"

    def has_run_code(self) -> bool:
        return (self.folder / "executed").exists()

    def arguments(self, words: str) -> list[str]:
        places = {
            "RUN": self.run,
            "RUNS": self.run.parent,
            "MINE": self.folder / "mine.yaml",
            "LINES": self.folder / "lines.txt",
            "OUT": self.folder / "out",
        }
        for name in sorted(places, key=len, reverse=True):
            words = re.sub(rf"\b{name}\b", str(places[name]), words)
        return words.split()


@pytest.fixture
def theirs(
    tmp_path: Path, untrained_run: Any, fresh_extensions: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Theirs]:
    """Return a function that makes a run which names an extension in the run's folder."""
    found = Theirs(tmp_path)
    mine = yaml.safe_load(untrained_run.recipe.read_text())

    def make(kind: str) -> Theirs:
        shutil.copytree(untrained_run.path, found.run)
        found.code.mkdir()
        marker = f"import pathlib\npathlib.Path({str(tmp_path / 'executed')!r}).touch()\n"
        (found.code / f"{NAME}.py").write_text(marker)
        named = {"extensions": [NAME], "extension_folder": str(found.code)}
        with monkeypatch.context() as patch:
            patch.setattr(extensions, "_loaded", {})
            patch.setattr(sys, "path", [*sys.path])
            identity = load_extensions([NAME], str(found.code)).identity()
        del sys.modules[NAME]
        (tmp_path / "executed").unlink()

        text = yaml.safe_dump(mine | named)
        (found.run / "recipe.yaml").write_text(text)
        card = untrained_run.card()
        card = card.model_copy(
            update={"identity": card.identity | identity | {"extensions": [NAME]}}
        )
        (found.run / "run.json").write_text(card.model_dump_json())
        for path in list_checkpoints(found.run / "checkpoints"):
            header = header_of(path)
            recipe = header.recipe | {"decoding": header.recipe["decoding"] | SHORT_TRANSLATIONS}
            changes: dict[str, Any] = {
                "recipe": recipe,
                "scores": scores_of({"loss": 1.0}),
                "numerics": {"ranks": 1, "zero_stage": 1},
            }
            if kind == CHECKPOINTS:
                changes["recipe"] = recipe | named
                changes["identity"] = header.identity | identity | {"extensions": [NAME]}
            rewrite_header(path, **changes)
        lines = "".join(f"{train_line(step).to_json()}\n" for step in (1, 2))
        (found.run / "metrics.jsonl").write_text(lines)
        write_job(found, text)
        (tmp_path / "lines.txt").write_text("oui\n")
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
        return found

    return make


def write_job(theirs: Theirs, recipe: str) -> None:
    """Write the record of a failed job, with the extension that was uploaded for the job."""
    record = a_record(theirs.run, state="FAILED", exit_code=1)
    request = record.request.model_copy(update={"recipe": recipe, "extensions": (f"{NAME}.py",)})
    job = JobFolder.of(theirs.run, record.id)
    job.path.mkdir(parents=True)
    job.write(record.model_copy(update={"request": request}))
    job.log.write_text("")
    shutil.copytree(theirs.code, job.path / "extensions")


def outcome(case: Case, theirs: Theirs) -> tuple[int, str]:
    """Return the exit code of a command and its output."""
    arguments = theirs.arguments(case.words)
    if case.own_process:
        done = in_a_process(*arguments, cwd=theirs.folder)
        return done.returncode, done.stdout + done.stderr
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, f"{result.output}{result.exception or ''}"


def line_told(text: str) -> str:
    """Return the folder to which a message sets the environment variable."""
    (value,) = re.findall(rf"{FOLDER_VARIABLE}=(\S+)", text)
    return value


KINDS_OF_CASES = [
    # A command that refuses extensions of checkpoints might still execute one that only the recipe
    # names, so it is also tested with such a recipe.
    *((case, RECIPE) for case in CASES if case.asks),
    *((case, CHECKPOINTS) for case in (*CASES, *LONG) if case.asks != RECIPE),
]


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("case", "kind"), KINDS_OF_CASES, ids=[f"{case.words}-{kind}" for case, kind in KINDS_OF_CASES]
)
def test_no_command_executes_code_of_a_run(theirs, case, kind, s3_server, s3_environment):
    found = theirs(kind)
    if "BUCKET" in case.words:
        case = replace(case, words=case.words.replace("BUCKET", s3_server.bucket("theirs")))
    code, said = outcome(case, found)
    assert not found.has_run_code()
    if case.asks is not None and KINDS.index(kind) >= KINDS.index(case.asks):
        assert code == 1
        places = (found.code, found.run / "jobs" / "mine" / "extensions")
        assert line_told(said) in map(str, places)
    elif case.refusal:
        assert code == 1
        assert case.refusal in said
    else:
        assert code == 0, said


@pytest.mark.parametrize("words", ["model show RUN", "translate RUN LINES"])
def test_a_command_executes_an_extension_whose_folder_the_user_names(theirs, monkeypatch, words):
    found = theirs(CHECKPOINTS)
    case = Case(words)
    code, said = outcome(case, found)
    assert (code, found.has_run_code()) == (1, False)
    monkeypatch.setenv(FOLDER_VARIABLE, line_told(said))
    code, said = outcome(case, found)
    assert (code, found.has_run_code()) == (0, True), said


def test_replay_accepts_an_extension_folder_on_its_command_line(theirs):
    found = theirs(RECIPE)
    code, said = outcome(Case("replay RUN --steps 1 extension_folder=5"), found)
    assert (code, found.has_run_code()) == (1, False)
    assert "extension_folder is 5, expected the path of a folder" in said
    outcome(Case("replay RUN --steps 1 extension_folder=RUN/code"), found)
    assert found.has_run_code()


@pytest.mark.matrix
@pytest.mark.parametrize("case", [case for case in CASES if case.asks], ids=lambda case: case.words)
def test_an_extension_whose_code_differs_from_the_runs_is_not_executed(theirs, monkeypatch, case):
    found = theirs(CHECKPOINTS)
    other = found.folder / "other"
    shutil.copytree(found.code, other)
    with (other / f"{NAME}.py").open("a") as module:
        module.write("# another line\n")
    monkeypatch.setenv(FOLDER_VARIABLE, str(other))
    code, said = outcome(case, found)
    assert (code, found.has_run_code()) == (1, False)
    assert re.search(
        rf"{NAME} is 0 sha256:\w+ on this machine, but 0 sha256:\w+ where the run was", said
    )


def test_an_installed_extension_with_different_code_is_not_executed(theirs, monkeypatch):
    found = theirs(RECIPE)
    code = (found.code / f"{NAME}.py").read_text()
    install(found.folder / "site", NAME, code, "loss.theirs")
    monkeypatch.syspath_prepend(found.folder / "site")
    code, said = outcome(Case("model show RUN"), found)
    assert (code, found.has_run_code()) == (1, False)
    assert re.search(rf"{NAME} is 1\.0 sha256:\w+ on this machine, but 0 sha256:\w+ where", said)


@pytest.mark.long
def test_the_dashboard_executes_no_code_of_a_run(theirs):
    found = theirs(RECIPE)
    with RunningDashboard(found.run.parent) as served:
        for path in ("", "/curves"):
            assert served.get(f"/api/runs/theirs{path}").status == 200
        with served.follow() as events:
            assert served.post("/api/runs/theirs/looks", {"from": 1, "to": 2}).status == 202
            while events.next("looks")[1]["state"] == "running":
                pass
        look = served.get("/api/runs/theirs/looks/1-2").json
    assert look["state"] == "failed"
    assert line_told(look["message"]) == str(found.code)
    assert not found.has_run_code()
