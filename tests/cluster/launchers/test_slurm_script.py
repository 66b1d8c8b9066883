"""Scripts of Slurm jobs: the resources that they request, and recipes that are refused."""

import re
import subprocess
from pathlib import Path

import pytest

from cluster.errors import ClusterError, RecipeError
from cluster.launchers import slurm
from cluster.recipe import load_recipe


def script_of(recipe_file, *overrides, array=None, at_once=None):
    runs = slurm.runs_of(recipe_file, overrides, array, None, Path("runs"))
    return slurm.slurm_script(
        load_recipe(recipe_file, overrides),
        recipe_file,
        runs,
        folder=Path("/shared/project"),
        programs=Path("/shared/venv/bin"),
        at_once=at_once,
    )


def script_in(recipe_file, folder):
    (run,) = slurm.runs_of(recipe_file, (), None, None, Path("runs"))
    recipe = load_recipe(recipe_file, ())
    return slurm.slurm_script(recipe, recipe_file, [run], folder=folder, programs=Path("/bin"))


def options_of(script):
    """Return the #SBATCH options, which Slurm reads up to the first command."""
    head = script[: re.search(r"^[^#\n]", script, re.MULTILINE).start()]
    return re.findall(r"^#SBATCH (.*)$", head, re.MULTILINE)


def test_a_job_of_one_node_has_these_options(recipe_file):
    script = script_of(recipe_file, "cluster.ranks=4", "cluster.cpus_per_rank=2")
    assert options_of(script) == [
        "--job-name=tiny",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--signal=B:TERM@180",
        "--open-mode=append",
        "--chdir=/shared/project",
        "--output=tiny-%j.out",
        "--requeue",
    ]


@pytest.mark.parametrize(("data_workers", "cpus"), [(1, 1 + 1), (2, 1 + 1), (3, 1 + 2), (5, 1 + 3)])
def test_every_node_reserves_cpus_for_its_share_of_data_workers(recipe_file, data_workers, cpus):
    """Either of the two nodes may get the larger half."""
    script = script_of(
        recipe_file,
        *("cluster.ranks=2", "cluster.slurm.nodes=2", "cluster.cpus_per_rank=1"),
        *(f"cluster.data_workers={data_workers}", "cluster.cpus_per_data_worker=1"),
    )
    assert f"--cpus-per-task={cpus}" in options_of(script)


def test_the_script_follows_the_recipe(recipe_file):
    script = script_of(
        recipe_file,
        *("cluster.ranks=5", "cluster.slurm.nodes=3", "cluster.gpus_per_rank=1"),
        *("cluster.data_workers=4", "cluster.cpus_per_data_worker=0.5", "cluster.cpus_per_rank=3"),
        *("cluster.grace_seconds=300", "cluster.slurm.time_limit_minutes=480"),
        *("cluster.slurm.partition=long", "cluster.slurm.account=mt"),
        *("cluster.slurm.qos=high", "cluster.slurm.nice=100"),
        "cluster.slurm.options=[--mem=64G, --constraint=a100]",
        "cluster.slurm.setup=[module load cuda]",
        array="seed=1,2,3",
        at_once=2,
    )
    options = options_of(script)
    # At most two ranks per node, with three CPUs each, and two data workers.
    assert {"--nodes=3", "--cpus-per-task=7", "--gpus-per-node=2"} <= set(options)
    assert {"--signal=B:TERM@360", "--time=480"} <= set(options)
    assert {"--partition=long", "--account=mt", "--qos=high", "--nice=100"} <= set(options)
    assert {"--array=0-2%2", "--output=tiny-%A_%a.out"} <= set(options)
    assert options[-2:] == ["--mem=64G", "--constraint=a100"]
    assert "\nmodule load cuda\n" in script
    assert "\noverrides_1=(cluster.ranks=5 " in script
    runs = Path.cwd() / "runs"  # the recipe has seed=3, which a name omits
    assert f"\nruns=({runs}/tiny,seed=1 {runs}/tiny,seed=2 {runs}/tiny)\n" in script.replace(
        "'", ""
    )


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("my --uid=0 project", '"/shared/my --uid=0 project"'),
        ("a#b", '"/shared/a#b"'),
        ("it's", '"/shared/it\'s"'),
        ('a "b"', r'"/shared/a \"b\""'),
        ("tab\there", '"/shared/tab\there"'),
        ("été", '"/shared/été"'),
        ("plain,name=1", "/shared/plain,name=1"),
    ],
)
def test_a_folder_is_a_single_word_of_an_sbatch_line(recipe_file, name, quoted):
    """`tests/lab/test_slurm.py` tests how Slurm reads these lines."""
    options = options_of(script_in(recipe_file, Path("/shared") / name))
    assert f"--chdir={quoted}" in options
    assert len(options) == 9


@pytest.mark.parametrize("name", ["a\n#SBATCH --wrap=x", "a\rb", "a%jb", "a\\b"])
def test_a_folder_that_slurm_would_misread_is_refused(recipe_file, name):
    with pytest.raises(ClusterError) as error:
        script_in(recipe_file, Path("/shared") / name)
    assert repr(f"/shared/{name}") in str(error.value)
    assert "Run the command in a folder whose path has no line end" in str(error.value)


def test_special_characters_in_file_names_are_quoted_for_the_shell(recipe_file, tmp_path):
    odd = "it's\n#SBATCH --wrap=x $(touch x)"
    copy = tmp_path / odd / "tiny.yaml"
    copy.parent.mkdir()
    copy.write_text(recipe_file.read_text())
    run = tmp_path / odd / "run"
    runs = slurm.runs_of(copy, (f"tracking.project={odd}",), None, run, Path("runs"))
    script = slurm.slurm_script(
        load_recipe(copy, ()), copy, runs, folder=Path("/shared"), programs=tmp_path / odd
    )
    assert not any("wrap" in option for option in options_of(script))
    settings = script.removesuffix(slurm.JOB.read_text())
    shown = settings + 'printf "%s\\0" "$programs" "$recipe" "${overrides_0[@]}" "${runs[@]}"'
    read = subprocess.run(["bash"], input=shown, capture_output=True, text=True, check=True).stdout
    expected = [str(tmp_path / odd), str(copy), f"tracking.project={odd}", str(run)]
    assert read.split("\0")[:-1] == expected


@pytest.mark.parametrize("nodes", [1, 2])
def test_bash_parses_the_script(recipe_file, nodes):
    script = script_of(recipe_file, "cluster.ranks=2", f"cluster.slurm.nodes={nodes}")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["cluster.slurm.nodes=3", "cluster.ranks=2"],
            "cluster.slurm.nodes is 3, but cluster.ranks is 2, so some nodes would have no "
            "rank. Set cluster.slurm.nodes to at most 2",
        ),
        (
            ["cluster.slurm.cpus_per_node=1", "cluster.ranks=4", "cluster.cpus_per_rank=1"],
            "cluster.slurm.cpus_per_node is 1, but 4 ranks and 1 data worker of a node reserve "
            "4 CPUs. Set it to at least 4",
        ),
        (
            ["cluster.slurm.time_limit_minutes=4"],
            "cluster.slurm.time_limit_minutes is 4, but the job is asked to stop 180 s before this "
            "limit (cluster.grace_seconds plus 60 s). Set the limit to at least 5 minutes",
        ),
        *(
            ([f'cluster.slurm.options=["{option}"]'], f"{option}', but the job sets {said}")
            for option, said in [
                ("--signal=B:USR1@60", "--signal itself"),
                ("--sig B:USR1@60", "--signal itself"),
                ("--no-requeue", "--no-requeue itself"),
                ("--requeue", "--requeue itself"),
                ("--time=2", "--time itself"),
                ("--mem=1G -t2", "--time itself"),
                ("-a 0-2", "--array itself"),
                ("--output=x", "--output itself"),
                ("-ox", "--output itself"),
            ]
        ),
        (["cluster.slurm.partition=a b"], "cluster.slurm.partition is 'a b'"),
        (['cluster.slurm.options=["--mem=1G\\nrm -r x"]'], "cluster.slurm.options.0 is"),
        (["cluster.slurm.options=[rm -r x]"], "cluster.slurm.options.0 is 'rm -r x'"),
        (['cluster.slurm.setup=["a\\n#SBATCH --x"]'], "cluster.slurm.setup.0 is"),
    ],
)
def test_recipes_that_slurm_cannot_run_are_refused(recipe_file, overrides, said):
    with pytest.raises(RecipeError) as error:
        script_of(recipe_file, *overrides)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        ("seed", "--array seed is not of the form KEY=VALUE,VALUE, e.g. seed=1,2,3"),
        ("seed=1,,2", "--array seed=1,,2 is not of the form"),
        ("seed=1,2,1", "two of the values give the same run"),
        ("cluster.ranks=1,2", "two of the values give the same run"),
        ("sed=1,2", "unknown key sed"),
    ],
)
def test_invalid_arrays_are_refused(recipe_file, array, said):
    with pytest.raises(RecipeError) as error:
        script_of(recipe_file, array=array)
    assert said in str(error.value)


def sbatch(folder, text):
    """Write a program `sbatch` that runs `text`."""
    program = folder / "sbatch"
    program.write_text(f"#!/bin/bash\n{text}\n")
    program.chmod(0o755)


def test_the_answer_of_sbatch_becomes_a_job_id_or_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="There is no sbatch on this machine"):
        slurm.submit("#!/bin/bash")
    sbatch(tmp_path, 'read -r line; [ "$line" = "#!/bin/bash" ] && echo "17;east"')
    assert slurm.submit("#!/bin/bash") == "17"
    sbatch(tmp_path, 'echo "sbatch: error: no such partition" >&2; exit 1')
    with pytest.raises(ClusterError, match=r"Slurm refuses the job: .* no such partition"):
        slurm.submit("#!/bin/bash")


def test_the_command_prints_the_script_or_submits_it(transloom, recipe_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = transloom("deploy", "slurm", recipe_file, "cluster.ranks=2").output
    assert f"#SBATCH --chdir={tmp_path}\n" in printed
    assert f"recipe={recipe_file}\n" in printed
    assert f"runs=({tmp_path}/runs/tiny)\n" in printed
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sbatch(tmp_path, "cat >submitted; echo 17")
    answer = transloom("deploy", "slurm", recipe_file, "cluster.ranks=2", "--submit")
    assert answer.output == "17\n"
    assert (tmp_path / "submitted").read_text() == printed
    refused = transloom("deploy", "slurm", recipe_file, "--array", "seed=1,2", "--run", "x")
    assert refused.exit_code == 2
    seeds = ("--array", "seed=1,2,3", "--at-once", "2")
    assert "#SBATCH --array=0-2%2\n" in transloom("deploy", "slurm", recipe_file, *seeds).output


@pytest.mark.parametrize("variable", ["SBATCH_TIMELIMIT", "SBATCH_SIGNAL", "SBATCH_NO_REQUEUE"])
def test_environment_variables_that_override_job_options_are_refused(
    transloom, recipe_file, monkeypatch, variable
):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ClusterError, match=f"{variable} is set.*Unset it"):
        transloom("deploy", "slurm", recipe_file)
