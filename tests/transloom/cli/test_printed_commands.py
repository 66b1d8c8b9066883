"""Commands that transloom prints can be pasted into a shell."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from support.command import TRANSLOOM, run_command
from support.recipes import tiny_values, write_yaml
from support.tasks import EXTENSIONS

from foundation.free_ports import free_port

PATH = os.pathsep.join(
    folder
    for folder in os.environ["PATH"].split(os.pathsep)
    if not (Path(folder) / "transloom").exists()
)
PRINTED = re.compile(r"^ *((?:echo .* \| )?(?:TRANSLOOM_EXTENSIONS=\S+ )?\S*transloom .*)$", re.M)

pytestmark = pytest.mark.long


class Shell:
    """A shell in a folder, without transloom on its PATH."""

    def __init__(self, folder, **variables):
        self.folder = folder
        self.environment = {**os.environ, "PATH": PATH, "WANDB_MODE": "disabled", **variables}

    def run(self, command):
        """Run a command, assert that it succeeds, and return its output."""
        done = run_command("bash", "-c", command, cwd=self.folder, **self.environment)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def serves(self, command):
        """Start a server, and stop it when it has printed its address."""
        with subprocess.Popen(
            ["bash", "-c", f"exec env {command} --port {free_port()}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                line = process.stdout.readline()
                assert "http://127.0.0.1" in line
            finally:
                process.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def trained(phrasebook, tmp_path_factory):
    """Train a run with an extension folder in its recipe; return the shell and the output."""
    folder = tmp_path_factory.mktemp("it's here")
    values = tiny_values(phrasebook, max_steps=4)
    values |= {"extensions": ["loss_ceiling"], "extension_folder": str(EXTENSIONS)}
    values["callbacks"] = [{"type": "loss_ceiling", "options": {"factor": 1e9}}]
    values["checkpoints"] = {"every_steps": 2}
    write_yaml(folder / "mine.yaml", values)
    shell = Shell(folder)
    return shell, shell.run(f"{TRANSLOOM} train mine.yaml --inline")


def test_the_commands_printed_by_a_run_with_extensions_succeed(trained):
    shell, printed = trained
    commands = PRINTED.findall(printed)
    assert len(commands) == 4
    for command in commands:
        assert command.count(f"TRANSLOOM_EXTENSIONS={EXTENSIONS} {TRANSLOOM} ") == 1
        (shell.serves if " dashboard " in command else shell.run)(command)


@pytest.mark.parametrize(
    "command",
    [
        "checkpoints average runs/tiny --last 2",
        "tune-decoding runs/tiny --beam-sizes 1,2 --length-penalties 0.6 --checkpoints newest",
    ],
)
def test_the_translate_command_printed_by_average_and_tune_decoding_succeeds(trained, command):
    shell = Shell(trained[0].folder, TRANSLOOM_EXTENSIONS=str(EXTENSIONS))
    (printed,) = PRINTED.findall(shell.run(f"{TRANSLOOM} {command}"))
    # In a shell without TRANSLOOM_EXTENSIONS, as in another terminal.
    assert Shell(shell.folder).run(f"echo bonjour | {printed}").count("\n") == 1


def test_the_commands_printed_by_init_succeed(tmp_path):
    lines = [(f"phrase {n % 97} bleue\n", f"blue sentence {n % 97}\n") for n in range(300)]
    for name, texts in zip(("a.fr", "a.en"), zip(*lines, strict=True), strict=True):
        (tmp_path / name).write_text("".join(texts))
    shell = Shell(tmp_path)
    commands = PRINTED.findall(
        shell.run(f"{TRANSLOOM} init 'my own.yaml' --source a.fr --target a.en")
    )
    assert [command.split(" ")[1] for command in commands] == ["prepare", "plan", "train"]
    recipe = tmp_path / "my own.yaml"
    short = re.sub(r"max_steps: \d+", "max_steps: 2", recipe.read_text())
    recipe.write_text(re.sub(r"  ranks: \d+", "  ranks: 1", short))
    for command in commands:
        shell.run(command)
    assert (tmp_path / "runs" / "my-own" / "metrics.jsonl").exists()
