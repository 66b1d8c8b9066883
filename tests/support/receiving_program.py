"""Program that receives notifications, and fails or hangs as a test specifies.

program = ReceivingProgram(folder, 3, 0)    # the exit code of each call; the last one stays
monkeypatch.setenv("TRANSLOOM_NOTIFY", program.command)
...
program.messages[0]["event"]
"""

import json
from pathlib import Path
from typing import Any

from support.cluster.processes import wait_until

VARIABLE = "TRANSLOOM_NOTIFY"
TARGET = f"{{command_from: {VARIABLE}}}"
SECRET = "s3cr3t-CANARY-0123456789"  # a secret in the arguments, which no message may show
HANG = "hang"
# Arguments: the folder of the messages ($0), the secret ($1), then the exit codes.
_SCRIPT = """
shift
number=$(ls "$0" | wc -l)
cat >"$0/.part"
mv "$0/.part" "$(printf '%s/%06d' "$0" "$number")"
[ "$number" -lt $# ] || number=$(($# - 1))
shift "$number"
[ "$1" != hang ] || exec sleep 600
exit "$1"
"""


class ReceivingProgram:
    """Program that writes each message into a separate, numbered file."""

    def __init__(self, folder: Path, *answers: int | str) -> None:
        """answers: for each call, an exit code or HANG."""
        self._folder = folder
        folder.mkdir(parents=True)
        codes = map(str, answers or (0,))
        self.command = json.dumps(["/bin/sh", "-c", _SCRIPT, str(folder), SECRET, *codes])

    @property
    def messages(self) -> list[dict[str, Any]]:
        files = sorted(self._folder.glob("[0-9]*"))
        return [json.loads(file.read_bytes()) for file in files]

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]

    def wait_for(self, messages: int) -> None:
        wait_until(lambda: len(self.messages) >= messages, explain=lambda: self.messages)
