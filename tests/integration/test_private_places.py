"""Access of other users of the machine to a run with a private Ray.

All tests inspect one run; the last test interrupts it.
"""

import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
from support.cluster.another_user import as_another_user
from support.cluster.processes import children, command_of, wait_until
from support.command import TRANSLOOM
from support.leaving import LAST, OUTCOME, RAY, Leaving
from support.recipes import tiny_values, write_yaml

OPERATIONS = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"
pytestmark = pytest.mark.proof
BEGINNING = "| who listens |"


@pytest.fixture(scope="module")
def temporary():
    """Yield a directory like /tmp, where all users may create files."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the parent folder of the run."""
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def leaving(tmp_path_factory):
    return Leaving(tmp_path_factory.mktemp("leaving"))


@pytest.fixture(scope="module")
def driver(folder, temporary, leaving, phrasebook):
    """Yield `transloom train` on two ranks, which train until they are stopped."""
    recipe = write_yaml(folder / "tiny.yaml", tiny_values(phrasebook, max_steps=1_000_000))
    with subprocess.Popen(
        [TRANSLOOM, "train", recipe, "cluster.ranks=2", "--strict", "--run", folder / "run"],
        env={**leaving.environment, "RAY_TMPDIR": str(temporary)},
        start_new_session=True,  # in a separate process group, as in a terminal
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        metrics = folder / "run" / "metrics.jsonl"
        wait_until(lambda: process.poll() is not None or (metrics.exists() and metrics.read_text()))
        assert process.poll() is None, process.communicate()
        yield process
        process.kill()


def documented_sockets():
    """Return the listening address by process, from the table in docs/explanation/security.md."""
    lines = OPERATIONS.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(BEGINNING))
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.search(r"`([^`]+)`", cells[0])
        if name and cells[1] != "–":
            table[name[1]] = cells[1].strip("`")
    return table


def name_of(process):
    """Return a process's title without its method, or its program before the title is set."""
    if process.name().startswith("python"):
        return next(Path(word).name for word in command_of(process) if word.endswith(".py"))
    return process.name().split(".")[0]


def listening(driver):
    """Return the processes of the run that listen, as (process, address)."""
    found = set()
    for process in [psutil.Process(driver.pid), *children(driver.pid)]:
        name = "transloom" if process.pid == driver.pid else name_of(process)
        for used in process.net_connections("inet"):
            waits = used.status == psutil.CONN_LISTEN
            if waits or (used.type == socket.SOCK_DGRAM and not used.raddr):
                found.add((name, used.laddr.ip.removeprefix("::ffff:")))
    return found


def test_open_sockets_are_those_of_the_table(driver):
    table = documented_sockets()
    found = listening(driver)
    assert found <= set(table.items())
    # These processes run only periodically.
    assert set(table) - {name for name, _ in found} <= {"ray::IDLE", "default_worker.py"}
    assert {address for _, address in found} == {"127.0.0.1"}


def test_named_sockets_are_in_private_folders(driver, temporary):
    (folder,) = temporary.glob("tlray-*")
    sockets = named_sockets(driver)
    assert {path.name for path in sockets} == {"raylet", "plasma_store"}
    assert all(path.is_relative_to(folder) for path in sockets)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def named_sockets(driver):
    return {
        Path(used.laddr)
        for process in [psutil.Process(driver.pid), *children(driver.pid)]
        for used in process.net_connections("unix")
        if used.laddr
    }


def test_another_user_can_neither_read_nor_write_nor_replace_session_files(driver, temporary):
    (folder,) = temporary.glob("tlray-*")
    session = (folder / "r" / "session_latest").resolve()
    assert session.stat().st_mode & 0o777 == 0o777  # Ray opens it to all users
    his = f"{temporary}/his"
    attacks = {
        "list": f"ls {session} || ls {folder}",
        "read": f"cat {session}/logs/raylet.out",
        "write": f"echo x > {session}/logs/new || echo x > {session}/runtime_resources/new",
        "connect": f"test -S {session}/sockets/raylet",
        "replace logs by a link": f"mv {session}/logs {session}/aside"
        f" && ln -s {his} {session}/logs",
        "replace the folder": f"mv {folder} {folder}-aside && mkdir {folder}",
    }
    assert as_another_user(f"mkdir {his} && chmod 777 {his}").returncode == 0
    try:
        done = [name for name, line in attacks.items() if as_another_user(line).returncode == 0]
        assert done == []
        assert (session / "logs").resolve() == session / "logs"
        assert list(Path(his).iterdir()) == []
    finally:
        Path(his).rmdir()


def test_ctrl_c_stops_all_processes_of_the_terminal_and_leaves_nothing(
    driver, temporary, leaving, folder
):
    """A signal during the driver's shutdown does not change its exit code."""
    sockets = named_sockets(driver)
    os.killpg(driver.pid, signal.SIGINT)
    said, _ = driver.communicate()
    assert driver.returncode == 75, said
    assert list((folder / "run" / "checkpoints").glob("step-*"))
    assert leaving.stages == OUTCOME + RAY + LAST
    assert list(temporary.iterdir()) == []
    assert not [path for path in sockets if path.parent.exists()]
