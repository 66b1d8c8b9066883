"""Copy of a commit with its own files, environment and commands.

    FOLDER/code    the files of the commit, or of the working tree
    FOLDER/venv    the same Python and third-party packages, but transloom only from FOLDER/code
    FOLDER/work    the working directory of the commit's commands

Making a virtual environment for each commit takes little time, and it affects every process: ranks
that Ray starts, pools of processes, and benchmarks that call `transloom` by its path. The
environment ignores the .pth files of the environment in which this script runs, and with them an
editable installation.
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

# Variables that would make one commit use the modules, caches or clusters of the other.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")
# The command as an installer writes it: processes of a pool import it, and must not run it.
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
    """Error of a commit that cannot be copied, or whose command has failed."""


class Checkout:
    """Copy of one of the two commits.

    Attributes:
        name: name of the copy in messages.
    """

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
        """Run a command of transloom to its end, and return its output.

        Raises:
            CheckoutError: the command failed; the message has the last lines of its output.
        """
        return self.run(self._venv / "bin" / "transloom", *arguments)

    def run(self, *command: str | Path) -> str:
        """Run any program to its end, and return its output, like `transloom`."""
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
                f"{self.name}: `{words} …` ended with exit code {process.returncode}:\n    {said}"
            )
        return output.decode()

    def begin_transloom(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a command that will be killed; its output goes to the log."""
        command = (self._venv / "bin" / "transloom", *arguments)
        with self.log.open("ab") as log:
            return self._start(command, output=log)

    def end(self) -> None:
        """Terminate the commands that still run, and refuse to start any more."""
        self._ended = True
        for process in list(self._running):
            process.terminate()

    def find(self, name: str) -> Path:
        """Return the path of the only file with this name in the copy.

        Raises:
            CheckoutError: there is no such file, or there are several.
        """
        found = sorted(self.code.rglob(name))
        if len(found) != 1:
            places = ", ".join(str(path.relative_to(self.code)) for path in found) or "nowhere"
            raise CheckoutError(f"{self.name}: expected one file named {name}, found: {places}")
        return found[0]

    def _start(
        self, command: tuple[str | Path, ...], output: int | IO[bytes] = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        if self._ended:
            raise CheckoutError(f"{self.name}: no command is started, because the script is ending")
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
        """Check that the environment imports all packages of this commit from its copy.

        Raises:
            CheckoutError: a package would be imported from elsewhere.
        """
        # Names of packages, and of modules that are files.
        modules = [path.stem for path in self._packages()]
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
        """Return the packages and files that the wheel contains."""
        wheel = self._project()["tool"]["hatch"]["build"]["targets"]["wheel"]
        return [self.code / package for package in wheel["packages"]]

    def _project(self) -> dict:
        return tomllib.loads((self.code / "pyproject.toml").read_text())


def check_out_commit(repository: Path, commit: str, folder: Path) -> Checkout:
    """Copy the files of a commit, without leaving a trace in the repository.

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
    """Copy the files of the working tree, committed or not, except those that git ignores."""
    listed = _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.decode().split("\0")):
        source, copy = repository / name, folder / "code" / name
        # Git also lists files whose deletion is not committed.
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    return Checkout("here", folder)


def _third_party() -> list[str]:
    """Return the folders of third-party packages in the environment of this script."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _git(repository: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout
