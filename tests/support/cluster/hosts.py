"""Separate hosts on this machine: network, mount, UTS, IPC and process namespaces.

Each has its own address on a bridge that only they see, its own name, processes, temporary folder
and /dev/shm, and no name service. All of a host ends with its first process, which ends with ours,
however that ends.
"""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Self

import psutil

from support.cluster.processes import wait_until

# $1: its name, $2: its /etc/hosts, then the folders below /tmp that all hosts share.
BOOT = """
set -e
mount --make-rprivate /
hostname "$1"
mount -t tmpfs tmpfs /mnt
printf '%s' "$2" >/mnt/hosts
mount --bind /mnt/hosts /etc/hosts
: >/mnt/resolv.conf
mount --bind /mnt/resolv.conf /etc/resolv.conf
shift 2
mkdir /mnt/tmp
mount --bind /tmp /mnt/tmp
mount -t tmpfs tmpfs /tmp
mount -t tmpfs -o size=4g tmpfs /dev/shm
for folder; do
    mkdir -p "$folder"
    mount --bind "/mnt$folder" "$folder"
done
umount /mnt/tmp
echo up
exec cat >/dev/null
"""
PROJECT = Path(__file__).resolve().parents[3]
TMP = Path("/tmp")
NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")


class Names(Enum):
    """Content of /etc/hosts about the hosts' names."""

    NONE = "nothing"
    DEBIAN = "the own name is 127.0.1.1"
    GOOD = "all names and their addresses"


class Hosts:
    """Some hosts, h1, h2 and so on; for the time of a context.

    Attributes:
        addresses: of h1, h2, ….
    """

    def __init__(self, count: int, names: Names, shared: Path) -> None:
        """shared: a folder below /tmp that is the same on all hosts, as the project is if it lies
        there; everything else there is not.

        Folders elsewhere are this machine's own.
        """
        assert TMP in shared.parents
        self.addresses = [f"10.77.0.{n + 1}" for n in range(count)]
        self._names = names
        self._folders = [shared, *([PROJECT] if TMP in PROJECT.parents else [])]
        self._first: list[psutil.Process] = []  # processes, those that a host lives as long as
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            switch = _boot(stack, ["--net"], "echo up; exec cat >/dev/null")
            self._switch = ["nsenter", f"--net=/proc/{switch.pid}/ns/net", "ip", "link"]
            _do([*self._switch, "add", "switch", "type", "bridge"])
            _do([*self._switch, "set", "switch", "up"])
            self._first = [self._new_host(stack, n) for n in range(len(self.addresses))]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self, host: int, *command: str | Path, env: Mapping[str, str]
    ) -> "subprocess.Popen[str]":
        """Start a program on a host; 0 is h1. What it prints can be read from the process."""
        process = self._stack.enter_context(
            subprocess.Popen(
                [*self._on(host), *map(str, command)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        self._stack.callback(process.kill)
        return process

    def run(self, host: int, *command: str | Path, env: Mapping[str, str]) -> str:
        """Return the output of a program that runs to its end on a host; it must succeed."""
        process = self.start(host, *command, env=env)
        output, _ = process.communicate()
        assert process.returncode == 0, f"{command} left {process.returncode}:\n{output}"
        return output

    def seen_from_here(self, host: int, path: Path) -> Path:
        """A path of a host's own files, as this process has to name it."""
        return Path(f"/proc/{self._first[host].pid}/root") / path.relative_to("/")

    def cut(self, host: int) -> None:
        """Take a host's cable out: it lives on, and nothing reaches it or comes from it."""
        _do([*self._switch, "set", f"h{host + 1}", "down"])

    def mend(self, host: int) -> None:
        """Put a host's cable back in."""
        _do([*self._switch, "set", f"h{host + 1}", "up"])

    def crash(self, host: int) -> None:
        """Let a host lose power: all that runs there is gone at once, and so is its cable."""
        self._first[host].kill()
        # The kernel takes a network away some time after its last process.
        wait_until(lambda: _fails([*self._switch, "show", f"h{host + 1}"]))

    def boot(self, host: int) -> None:
        """Start a host that has crashed; nothing runs there yet, and its own folders are empty."""
        self._first[host] = self._new_host(self._stack, host)

    def processes(self, host: int) -> list[psutil.Process]:
        """Return all processes of a host except its first, which waits for none that have ended."""
        first = self._first[host].pid
        space = Path(f"/proc/{first}/ns/pid").readlink()
        found = []
        for process in psutil.process_iter():
            try:
                if Path(f"/proc/{process.pid}/ns/pid").readlink() != space:
                    continue
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.NoSuchProcess):
                continue  # it has ended since
        return [process for process in found if process.pid != first]

    def _new_host(self, stack: ExitStack, host: int) -> psutil.Process:
        """The first process of a host that has been connected to the others."""
        name, address = f"h{host + 1}", self.addresses[host]
        options = [*NAMESPACES, "--mount-proc", "--fork", "--kill-child=KILL"]
        folders = map(str, self._folders)
        first = _boot(stack, options, BOOT, name, self._etc_hosts(host), *folders)
        cable = f"add {name} type veth peer name eth0 netns {first.pid}"
        _do([*self._switch, *cable.split()])
        _do([*self._switch, "set", name, "master", "switch", "up"])
        for command in (
            "ip link set lo up",
            f"ip addr add {address}/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default dev eth0",
        ):
            _do([*_within(first), *command.split()])
        return first

    def _on(self, host: int) -> list[str]:
        return _within(self._first[host])

    def _etc_hosts(self, host: int) -> str:
        own = {
            Names.NONE: [],
            Names.DEBIAN: [f"127.0.1.1 h{host + 1}"],
            Names.GOOD: [f"{address} h{n + 1}" for n, address in enumerate(self.addresses)],
        }
        return "\n".join(["127.0.0.1 localhost", *own[self._names], ""])


def _boot(stack: ExitStack, options: Sequence[str], script: str, *arguments: str) -> psutil.Process:
    """The first process of new namespaces: a shell that ends when the context or we do."""
    unshare = stack.enter_context(
        subprocess.Popen(
            ["unshare", *options, "sh", "-c", script, "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    stack.callback(unshare.kill)  # before it is waited for, which is what its own context does
    assert unshare.stdout
    said = unshare.stdout.readline()
    assert said == "up\n", said + unshare.stdout.read()
    children = psutil.Process(unshare.pid).children()
    return children[0] if "--fork" in options else psutil.Process(unshare.pid)


def _within(first: psutil.Process) -> list[str]:
    """Return the prefix of a command that runs it on the host of this first process."""
    return ["nsenter", f"--target={first.pid}", *NAMESPACES, "--"]


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def _do(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
