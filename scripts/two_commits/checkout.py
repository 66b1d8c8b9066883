"""A commit beside another one: its files, its environment, its commands.

    FOLDER/code    the files of the commit, or of the working tree
    FOLDER/venv    the same Python and the same third-party packages, but transloom from code alone
    FOLDER/work    where its commands run, so that no folder of theirs is another's

A virtual environment for each side takes a moment to make, and holds in every process: in ranks
that Ray starts, in pools of processes, and in benchmarks that call `transloom` by its path. It
ignores the .pth files of the environment that we run in, and with them an editable installation.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path
from typing import IO

# Variables that would lead a side to the other's modules, caches or clusters.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")
# The command as an installer writes it: a pool's processes import it, and must not run it.
SCRIPT = """#!{python}
import sys
from {module} import {function}
if __name__ == "__main__":
    sys.exit({function}())
"""
WHERE = """
import importlib, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    print(module.__file__ or list(module.__path__)[0])
"""
LAST_LINES = 12


class CheckoutError(Exception):
    """A commit cannot be looked at, or one of its commands has failed."""


class Checkout:
    """One of the two sides; `name` is what messages call it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.code = folder / "code"
        self.work = folder / "work"
        self.log = folder / "log.txt"
        self._venv = folder / "venv"
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False
        self.work.mkdir()
        self._make_environment()
        self._see_what_is_imported()

    @property
    def python(self) -> Path:
        return self._venv / "bin" / "python"

    def transloom(self, *arguments: str | Path) -> str:
        """Runs a command to its end and returns what it printed.

        Raises:
            CheckoutError: the command failed; the message has the last lines of its output.
        """
        return self.run(self._venv / "bin" / "transloom", *arguments)

    def run(self, *command: str | Path) -> str:
        """Runs any program, as `transloom` does."""
        process = self._start(command)
        output, errors = process.communicate()
        self._running.discard(process)
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(map(str, command))}\n".encode() + errors + output)
        if process.returncode != 0:
            lines = (errors + output).decode(errors="replace").strip().splitlines()
            said = "\n    ".join(lines[-LAST_LINES:])
            words = " ".join(map(str, (Path(command[0]).name, *command[1:3])))
            raise CheckoutError(
                f"{self.name}: `{words} …` ended with {process.returncode}:\n    {said}"
            )
        return output.decode()

    def begin_transloom(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Starts a command that is going to be killed; what it prints goes to the log."""
        command = (self._venv / "bin" / "transloom", *arguments)
        with self.log.open("ab") as log:
            return self._start(command, output=log)

    def end(self) -> None:
        """Asks the commands that still run to end, and starts none any more."""
        self._ended = True
        for process in list(self._running):
            process.terminate()

    def find(self, name: str) -> Path:
        """The only file of that name, wherever it lies.

        Raises:
            CheckoutError: there is none, or there are several.
        """
        found = sorted(self.code.rglob(name))
        if len(found) != 1:
            places = ", ".join(str(path.relative_to(self.code)) for path in found) or "nowhere"
            raise CheckoutError(f"{self.name}: one file named {name} is needed; found: {places}")
        return found[0]

    def _start(
        self, command: tuple[str | Path, ...], output: int | IO[bytes] = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        if self._ended:
            raise CheckoutError(f"{self.name}: given up")
        kept = {k: v for k, v in os.environ.items() if k not in FOREIGN}
        own = {
            "PATH": f"{self._venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "TRANSLOOM_CACHE": str(self.work / "cache"),
            "WANDB_MODE": "disabled",
        }
        process = subprocess.Popen(
            command,
            cwd=self.work,
            env=kept | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        self._running.add(process)
        return process

    def _make_environment(self) -> None:
        venv.EnvBuilder(with_pip=False, symlinks=True).create(self._venv)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        paths = [*self._import_roots(), *_third_party()]
        packages = self._venv / "lib" / version / "site-packages"
        (packages / "two_commits.pth").write_text("".join(f"{path}\n" for path in paths))
        for name, entry in self._project()["project"]["scripts"].items():
            module, function = entry.split(":")
            script = self._venv / "bin" / name
            script.write_text(SCRIPT.format(python=self.python, module=module, function=function))
            script.chmod(0o755)

    def _see_what_is_imported(self) -> None:
        """Refuses an environment in which a package of this side comes from anywhere else."""
        modules = [path.stem for path in self._packages()]  # a package or a file
        modules += [entry.split(":")[0] for entry in self._project()["project"]["scripts"].values()]
        found = self.run(self.python, "-c", WHERE, *modules).split()
        foreign = [path for path in found if not Path(path).is_relative_to(self.code)]
        if foreign or len(found) != len(modules):
            raise CheckoutError(
                f"{self.name} would import {', '.join(foreign) or 'nothing'} instead of "
                f"{', '.join(modules)} from {self.code}"
            )

    def _import_roots(self) -> list[Path]:
        return sorted({package.parent for package in self._packages()})

    def _packages(self) -> list[Path]:
        """The packages and files that the wheel is made of."""
        wheel = self._project()["tool"]["hatch"]["build"]["targets"]["wheel"]
        return [self.code / package for package in wheel["packages"]]

    def _project(self) -> dict:
        return tomllib.loads((self.code / "pyproject.toml").read_text())


def check_out_commit(repository: Path, commit: str, folder: Path) -> Checkout:
    """Copies the files of a commit; the repository keeps no trace of it.

    Raises:
        CheckoutError: there is no such commit.
    """
    revision = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}"]
    try:
        full = _git(repository, *revision).decode().strip()
    except subprocess.CalledProcessError as error:
        raise CheckoutError(f"There is no commit {commit} in {repository}") from error
    (folder / "code").mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(_git(repository, "archive", full))) as archive:
        archive.extractall(folder / "code", filter="data")
    return Checkout("base", folder)


def copy_working_tree(repository: Path, folder: Path) -> Checkout:
    """Copies the files as they lie there, committed or not, except those that git ignores."""
    listed = _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.decode().split("\0")):
        source, copy = repository / name, folder / "code" / name
        if source.is_symlink() or source.exists():  # it may be deleted and not committed yet
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    return Checkout("here", folder)


def _third_party() -> list[str]:
    """The folders of packages installed in the environment that we run in."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _git(repository: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout
