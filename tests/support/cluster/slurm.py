"""Slurm on separate hosts, with Debian's packages, which no other process can reach.

Each host is a node, and the first also has the controller. Slurm authenticates no user (auth/none),
because its hosts run only the test.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from support.cluster.hosts import Hosts
from support.cluster.processes import HANG_SECONDS, wait_until
from support.machine_parts import program

CONFIGURATION = """
ClusterName=lab
SlurmctldHost=h1({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
{nodes}
PartitionName=lab Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={name} NodeAddr={address} CPUs=4 RealMemory=4000"


class Slurm:
    """Commands of Slurm; its daemons end with their host.

    Attributes:
        folder: the folder of its logs.
    """

    def __init__(self, hosts: Hosts, folder: Path, environment: Mapping[str, str]) -> None:
        """environment: variables of the commands, and of the jobs."""
        self.folder = folder
        self._hosts = hosts
        self._environment = {**environment, "SLURM_CONF": str(folder / "slurm.conf")}
        (folder / "state").mkdir(parents=True)
        names = [f"h{n + 1}" for n in range(len(hosts.addresses))]
        nodes = "\n".join(
            NODE.format(name=name, address=address)
            for name, address in zip(names, hosts.addresses, strict=True)
        )
        configuration = CONFIGURATION.format(
            folder=folder, controller=hosts.addresses[0], nodes=nodes
        )
        (folder / "slurm.conf").write_text(configuration)
        self._start(0, "slurmctld", "-D", "-c")
        for host, name in enumerate(names):
            self._start(host, "slurmd", "-D", "-N", name)
        idle = f"{len(names)} idle"
        self.wait_until(lambda: self("sinfo", "--noheader", "--format=%D %T", check=False) == idle)

    def _start(self, host: int, daemon: str, *options: str) -> None:
        path = program(daemon)
        assert path
        self._hosts.start(host, path, *options, env=self._environment)

    def __call__(self, name: str, *arguments: str | Path, check: bool = True) -> str:
        """Return the output of one of Slurm's commands."""
        process = self._hosts.start(0, name, *arguments, env=self._environment)
        output, _ = process.communicate()
        assert not check or process.returncode == 0, f"{name}: {output}"
        return output.strip()

    def job(self, number: str) -> dict[str, str]:
        """Return Slurm's fields of a job, such as JobState."""
        words = self("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def host_processes(self) -> list[psutil.Process]:
        """Return all processes on its hosts: Slurm's daemons, jobs, and processes left by jobs."""
        hosts = range(len(self._hosts.addresses))
        return [process for host in hosts for process in self._hosts.processes(host)]

    def wait_until(self, condition: Callable[[], object], seconds: float = HANG_SECONDS) -> None:
        """Wait until Slurm has met a condition; if it does not, the error has Slurm's logs."""
        wait_until(condition, seconds, self._logs)

    def _logs(self) -> str:
        return os.linesep.join(
            f"{log.name}:\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log")
        )
