"""Let children of a process die, or get no disk space, at a file operation; see file_faults.c."""

import ctypes
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")
ENDED = 86


class Fault(IntEnum):
    """Kind of fault; the numbers are those in the C source."""

    EXIT = 0
    HALF = 1
    POWER = 2
    NO_SPACE = 3


class FaultServer:
    """Server that imports the modules of its children once; it runs jobs like `RankPool`."""

    def __init__(self, folder: Path) -> None:
        library = folder / "file_faults.so"
        flags = ["-std=gnu11", "-O1", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, "-o", library, SOURCE], check=True)
        self.folder = folder / "files"
        self.folder.mkdir()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        environment = {"LD_PRELOAD": str(library), "FILE_FAULTS_FOLDER": str(self.folder)}
        os.environ |= environment
        try:
            self._process.start()
        finally:
            for name in environment:
                del os.environ[name]

    def run(self, job: Callable[..., Any], *arguments: Any) -> Any:
        self._pipe.send((job, arguments))
        succeeded, answer = self._pipe.recv()
        assert succeeded, answer
        return answer

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(timeout=10)


def struck_child(k: int, fault: Fault, job: Callable[[], None]) -> tuple[int, int]:
    """Run a job in a child with a fault at its k-th operation; call this in the server.

    Return the child's exit code, and the number of operations that it executed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
        status = 1
        try:
            faults.file_faults_arm(ctypes.c_long(k), int(fault))
            job()
            os.write(writer, str(faults.file_faults_counted()).encode())
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:  # noqa: PTH123 (a descriptor)
        counted = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(counted or k)


def _serve(pipe: Connection) -> None:
    while (task := pipe.recv()) is not None:
        job, arguments = task
        try:
            pipe.send((True, job(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
