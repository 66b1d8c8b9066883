"""Targets of notifications: commands of the driver's environment.

A command runs without a shell, and its arguments are visible to all users of the host. So an
argument with a credential is refused, and no message of this module contains the command.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from cluster.notify.notification import Notification
from foundation.location import credential_in
from trainer.notify_config import NotifyTarget


class TargetError(Exception):
    """The environment does not configure a target of the recipe."""


@dataclass(frozen=True)
class DeliveryProblem:
    """Reason why a target did not accept a notification.

    Attributes:
        text: the reason, without secrets.
        is_temporary: whether another attempt may succeed.
    """

    text: str
    is_temporary: bool = True


class CommandTarget:
    """Program that reads each notification from its standard input.

    Attributes:
        name: the name of the environment variable with the command.
    """

    def __init__(self, target: NotifyTarget, argv: list[str]) -> None:
        self.name = target.command_from
        self._body = Notification.to_text if target.format == "text" else Notification.to_json
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None

    def send(self, notification: Notification, seconds: float) -> DeliveryProblem | None:
        """Make one attempt to deliver a notification; return the problem, or None.

        Args:
            seconds: time after which the program and its children are killed.
        """
        try:
            process = subprocess.Popen(
                self._argv,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # neither Ctrl-C nor a closed terminal ends it
            )
        except OSError as error:
            return DeliveryProblem(f"the program cannot be started: {error.strerror}", False)
        self._process = process
        try:
            process.communicate(self._body(notification), timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return DeliveryProblem(f"the program did not end within {seconds:.3g} s")
        finally:
            self._process = None
        code = process.returncode
        return DeliveryProblem(f"the program ended with exit code {code}") if code else None

    def stop(self) -> None:
        """Kill the program of an attempt in another thread, because this process ends."""
        if process := self._process:
            _kill(process)


def open_target(target: NotifyTarget, environment: Mapping[str, str]) -> CommandTarget:
    """Return a target with the command from the environment.

    Raises:
        TargetError: the variable is not set, or its value cannot be used. The message does not show
            the value.
    """
    variable = target.command_from
    value = environment.get(variable, "").strip()
    if not value:
        raise TargetError(
            f"{variable} is not set in the environment of the driver on {socket.gethostname()}: "
            "set it there to the command, or remove the target from tracking.notify.targets"
        )
    argv = None
    with suppress(ValueError, RecursionError):
        argv = json.loads(value)
    if (
        not isinstance(argv, list)
        or not all(isinstance(word, str) and "\0" not in word for word in argv)
        or not argv
        or not argv[0].startswith("/")
    ):
        raise TargetError(
            f"{variable} has no command: expected a JSON list of texts whose first item is the "
            'absolute path of a program, such as ["/usr/local/bin/page", "--team", "ml"]. The '
            "value is not shown, because it may be a secret"
        )
    if any(map(credential_in, argv)):
        raise TargetError(
            f"{variable} has a credential in the command, which all users of this host can see: "
            "put it into a file of mode 0600 that the program reads"
        )
    return CommandTarget(target, argv)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the group that a process leads, unless the process has ended."""
    with suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
