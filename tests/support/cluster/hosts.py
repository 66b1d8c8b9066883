"""Separate hosts on this machine: network, mount, UTS, IPC and process namespaces.

Each host has an address on a bridge that only the hosts can reach, a name, processes, a temporary
folder and /dev/shm, and no name service. All processes of a host end with its first process, which
ends with this process in any case.
"""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Self

import psutil

from support.cluster.processes import wait_until

# $1: the host's name, $2: its /etc/hosts, then the folders below /tmp that all hosts share.
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
    """Names of hosts that /etc/hosts contains."""

    NONE = "nothing"
    DEBIAN = "the own name is 127.0.1.1"
    GOOD = "all names and their addresses"


class Hosts:
    """Hosts named h1, h2 and so on, which exist during a context.

    Attributes:
        addresses: the addresses of the hosts, in order.
    """

    def __init__(self, count: int, names: Names, shared: Path) -> None:
        """Prepare the hosts.

        Folders outside of /tmp are those of this machine.

        Args:
            shared: a folder below /tmp that is the same on all hosts. If the project is below /tmp,
                it is shared, too. Each host has separate files in the rest of /tmp.
        """
        assert TMP in shared.parents
        self.addresses = [f"10.77.0.{n + 1}" for n in range(count)]
        self._names = names
        self._folders = [shared, *([PROJECT] if TMP in PROJECT.parents else [])]
        self._first: list[psutil.Process] = []  # the first process of each host
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
        """Start a program on a host, and return its process, whose output can be read; 0 is h1."""
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
        """Run a program on a host, and return its output; fail if its exit code is not 0."""
        process = self.start(host, *command, env=env)
        output, _ = process.communicate()
        assert process.returncode == 0, f"{command} left {process.returncode}:\n{output}"
        return output

    def seen_from_here(self, host: int, path: Path) -> Path:
        """Return the path by which this process reaches a host's own file."""
        return Path(f"/proc/{self._first[host].pid}/root") / path.relative_to("/")

    def cut(self, host: int) -> None:
        """Disconnect a host from the network; its processes continue."""
        _do([*self._switch, "set", f"h{host + 1}", "down"])

    def mend(self, host: int) -> None:
        """Reconnect a host to the network."""
        _do([*self._switch, "set", f"h{host + 1}", "up"])

    def crash(self, host: int) -> None:
        """Let a host lose power: kill its processes, and remove its network interface."""
        self._first[host].kill()
        # The kernel removes a network namespace some time after its last process.
        wait_until(lambda: _fails([*self._switch, "show", f"h{host + 1}"]))

    def boot(self, host: int) -> None:
        """Start a host again after a crash, without processes and with empty folders."""
        self._first[host] = self._new_host(self._stack, host)

    def processes(self, host: int) -> list[psutil.Process]:
        """Return all processes of a host except its first, which does not reap its children."""
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
                continue  # the process has ended since the list was read
        return [process for process in found if process.pid != first]

    def _new_host(self, stack: ExitStack, host: int) -> psutil.Process:
        """Start the first process of a host, and connect the host to the others."""
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
    """Start a shell in new namespaces; it ends with the context or with this process."""
    unshare = stack.enter_context(
        subprocess.Popen(
            ["unshare", *options, "sh", "-c", script, "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    # kill the shell first, because the process's own context waits for its end
    stack.callback(unshare.kill)
    assert unshare.stdout
    said = unshare.stdout.readline()
    assert said == "up\n", said + unshare.stdout.read()
    children = psutil.Process(unshare.pid).children()
    return children[0] if "--fork" in options else psutil.Process(unshare.pid)


def _within(first: psutil.Process) -> list[str]:
    """Return the command prefix that runs a command on the host with this first process."""
    return ["nsenter", f"--target={first.pid}", *NAMESPACES, "--"]


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def _do(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
