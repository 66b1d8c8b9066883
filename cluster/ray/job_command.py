"""The command of a Ray job: a shell line, with placeholders for values that the head node knows.

A job's command runs in a shell on the head node, in the directory of the job's uploaded files.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Attachment:
    """A file to upload with a job.

    As a word of the job's command, it stands for the path of the uploaded file.
    """

    name: str
    content: bytes

    def __post_init__(self) -> None:
        # Ray adds the attachments' directory to the job's Python path, so none may be importable.
        assert Path(self.name).name == self.name, self.name
        assert Path(self.name).suffix not in {".py", ".so", ".pth"}, self.name


class HeadPython:
    """Placeholder, in a job's command, for the Python that runs Ray on the head node.

    The parent process of the job's shell is a Ray process. The path of the Ray library that this
    process has mapped into memory reveals its Python environment.
    """


HEAD_PYTHON = HeadPython()
_FIND_HEAD_PYTHON = (
    "python=$(sed -n 's|^[^/]*\\(/.*\\)/lib[^/]*/python3[^/]*/[a-z]*-packages/ray/_raylet.so$"
    "|\\1/bin/python3|p' /proc/$PPID/maps | head -n 1); "
    '[ -x "$python" ] || python=python3; '
)
Word = str | Attachment | HeadPython


def shell_command(command: Sequence[Word], folder: Path, programs: Path) -> str:
    """Return the command as one line for a POSIX shell.

    Args:
        folder: working directory of the command. The shell itself starts in the directory of the
            attachments.
        programs: directory that the shell searches for programs before those of PATH.
    """
    words = " ".join(map(_shell_word, command))
    find_python = _FIND_HEAD_PYTHON if HEAD_PYTHON in command else ""
    remedy = "Submit the job from a folder that all nodes share"
    complaint = f"error: this node has no folder {folder}. {remedy}"
    return (
        f'attachments=$PWD; {find_python}export PATH={shlex.quote(str(programs))}:"$PATH"; '
        f"cd {shlex.quote(str(folder))} || {{ echo {shlex.quote(complaint)} >&2; exit 2; }}; "
        f"exec {words}"
    )


def _shell_word(part: Word) -> str:
    if isinstance(part, HeadPython):
        return '"$python"'
    if isinstance(part, Attachment):
        return f'"$attachments"/{shlex.quote(part.name)}'
    return shlex.quote(part)


def readable(command: Sequence[Word]) -> str:
    return shlex.join(_readable_word(part) for part in command)


def _readable_word(part: Word) -> str:
    if isinstance(part, HeadPython):
        return "python"
    return part.name if isinstance(part, Attachment) else part
