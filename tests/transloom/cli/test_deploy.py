"""The files that `transloom deploy` writes, and the commands that it prints for them."""

import json
import os
import shlex

import pytest

from cluster.errors import ClusterError
from cluster.launchers.registry import LAUNCHERS, Launcher
from transloom.cli.deploy import deploy_app

KUBERNETES = ["kubernetes", "phrasebook", "data.dataset=/shared/d", "cluster.kubernetes.image=cpu"]


@pytest.mark.parametrize(
    ("job", "command"),
    [(["slurm", "phrasebook"], ["sbatch"]), (KUBERNETES, ["kubectl", "apply", "-f"])],
)
def test_deploy_prints_the_output_file_and_the_submit_command(transloom, tmp_path, job, command):
    output = tmp_path / "my job"
    said = transloom("deploy", *job, "--output", output).output
    assert f"to {output}." in said
    assert shlex.split(said.splitlines()[-1]) == [*command, str(output)]
    assert output.read_text() == transloom("deploy", *job).output
    as_json = json.loads(transloom("deploy", *job, "--output", output, "--json").output)
    assert as_json["file"] == str(output)


def test_deploy_slurm_can_submit_a_script_and_also_write_it(transloom, tmp_path, monkeypatch):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\ncat >/dev/null\necho 7\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    output = tmp_path / "job.sbatch"
    done = transloom("deploy", "slurm", "phrasebook", "--submit", "--output", output)
    assert done.stdout == "7\n"
    assert str(output) in done.stderr
    assert output.read_text() == transloom("deploy", "slurm", "phrasebook").output


@pytest.mark.parametrize(
    "job", [["slurm", "phrasebook", "--run", "a\udcff"], [*KUBERNETES, "--run", "/shared/a\udcff"]]
)
def test_deploy_refuses_a_run_path_that_is_not_utf_8_and_writes_nothing(transloom, tmp_path, job):
    output = tmp_path / "job"
    with pytest.raises(ClusterError) as error:
        transloom("deploy", *job, "--output", output)
    assert "a\\udcff" in str(error.value)
    assert "rename" in str(error.value)
    assert not output.exists()


def test_each_launcher_has_a_deploy_command():
    commands = {command.name for command in deploy_app.registered_commands if not command.hidden}
    assert commands == set(LAUNCHERS)
    assert all(isinstance(LAUNCHERS[name](), Launcher) for name in LAUNCHERS)
