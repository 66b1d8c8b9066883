"""Ray on hosts in namespaces."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from support.cluster.hosts import Hosts
from support.cluster.processes import wait_until

BIN = Path(sys.executable).parent
STARTS = 10
# Names of processes, which Linux truncates to 15 characters. A raylet ends without its agents.
RAYLET = ("raylet",)
AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")
OPTIONS = [f"--object-store-memory={200 * 2**20}", "--disable-usage-stats"]


def start_head(
    hosts: Hosts,
    environment: Mapping[str, str],
    cpus: int,
    before: Sequence[str] = (),
    more: Sequence[str] = (),
) -> str:
    """Start Ray's head on the first host, and return its address.

    before: command prefix, such as `taskset`.
    more: more options of `ray start`.
    """
    head = ["--head", "--port=6379", f"--num-cpus={cpus}", *more]
    _start(hosts, 0, environment, [*before, BIN / "ray", "start", *head])
    return _head(hosts)


def join(
    hosts: Hosts,
    host: int,
    environment: Mapping[str, str],
    cpus: int = 1,
    before: Sequence[str] = (),
) -> None:
    """Start a Ray node on a host, and let it join the cluster of the first host."""
    node = [f"--address={_head(hosts)}", f"--num-cpus={cpus}"]
    _start(hosts, host, environment, [*before, BIN / "ray", "start", *node])


def leave(hosts: Hosts, host: int, environment: Mapping[str, str]) -> None:
    """End the remaining Ray processes of a host that the cluster considers lost."""
    hosts.run(host, BIN / "ray", "stop", "--force", env=environment)


def named(hosts: Hosts, host: int, names: tuple[str, ...]) -> list[psutil.Process]:
    """Return the processes of a host that have one of these names."""
    found = []
    for process in hosts.processes(host):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(names):
                found.append(process)
    return found


def _head(hosts: Hosts) -> str:
    return f"{hosts.addresses[0]}:6379"


def _start(
    hosts: Hosts, host: int, environment: Mapping[str, str], command: Sequence[str | Path]
) -> None:
    """Run `ray start` on a host until the node runs with its agents.

    On a busy machine, an agent may start later than the raylet expects (2.60.0). The raylet then
    ends.
    """
    for _ in range(STARTS):
        process = hosts.start(host, *command, *OPTIONS, env=environment)
        said, _ = process.communicate()
        wait_until(lambda: _has_agents(hosts, host) or not named(hosts, host, RAYLET))
        if process.returncode == 0 and _has_agents(hosts, host):
            return
        leave(hosts, host, environment)
    raise AssertionError(f"`ray start` has failed {STARTS} times: {said}")


def _has_agents(hosts: Hosts, host: int) -> bool:
    return len(named(hosts, host, AGENTS)) == len(AGENTS)
