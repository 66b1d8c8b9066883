"""deploy/Dockerfile and the wheelhouse install the same packages as make setup.

The tests read the files; they build no image.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKED = ["--require-hashes", "--only-binary", ":all:", "--no-binary", "deepspeed"]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def instructions():
    """Return the name and arguments of each instruction of the Dockerfile, in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, arguments.strip()) for name, arguments in lines]


def installs():
    runs = [arguments for name, arguments in instructions() if name == "RUN"]
    return [part for run in runs for part in run.split("&&") if "pip install" in part]


def in_order(wanted, words):
    return " ".join(wanted) in " ".join(words)


def test_the_image_installs_packages_only_by_locks_or_offline():
    by_lock = [line for line in installs() if "-r locks/" in line]
    assert [re.search(r"-r locks/(\S+)", line)[1] for line in by_lock] == [
        "build.txt",
        "${LOCK}.txt",
    ]
    assert all(in_order(LOCKED, line.split()) for line in by_lock)
    (own,) = [line for line in installs() if line not in by_lock]
    assert {"--no-index", "--no-deps"} <= set(own.split())
    command = ["make", "-n", "-W", "pyproject.toml", "setup"]
    setup = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in installs():  # the same flags as make setup
        flags = {word for word in line.split() if re.match(r"--(?!extra)", word)}
        assert flags <= set(setup.split()), line
    for lock in ("cpu", "cuda"):
        assert (ROOT / "locks" / f"{lock}.txt").is_file()


def test_the_image_copies_existing_files_and_the_build_context_no_others():
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in allowed
    copied = [
        word
        for name, arguments in instructions()
        if name == "COPY" and "--from" not in arguments
        for word in arguments.split()[:-1]
    ]
    assert set(copied) == {line[1:] for line in allowed if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_does_not_run_as_root():
    last = [n for n, (name, _) in enumerate(instructions()) if name == "FROM"][-1]
    final = instructions()[last:]
    (user,) = [arguments for name, arguments in final if name == "USER"]
    uid, gid = user.split(":")
    pods = (ROOT / "cluster/launchers/rayjob.yaml").read_text()
    assert f"runAsUser: {uid}\n" in pods
    assert f"fsGroup: {gid}\n" in pods
    after = [name for name, _ in final[final.index(("USER", user)) :]]
    assert "RUN" not in after  # no instruction runs as this user
    environment = dict(
        word.split("=", 1) for n, a in final if n == "ENV" for word in shlex.split(a)
    )
    assert environment["HOME"] == "/tmp"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("script", ["wheelhouse", "install_offline"])
def test_wheelhouse_scripts_use_the_options_of_the_locks(script):
    text = (ROOT / "scripts" / script).read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert in_order(LOCKED, text.replace("\\\n", " ").split())


def test_a_wheelhouse_is_installed_without_an_index():
    text = (ROOT / "scripts" / "install_offline").read_text()
    assert re.search(r'^install=\(.* install .*--no-index --find-links "\$house"', text, re.M)
    commands = [line for line in text.splitlines() if not line.startswith("#")]
    assert sum(" install " in line for line in commands) == 1
