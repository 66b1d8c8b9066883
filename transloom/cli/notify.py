"""Command `transloom notify`: send a test message to each target of a recipe."""

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cluster.errors import RecipeError
from transloom.cli.options import JsonOption, Overrides, RecipeArgument, RunOption, answer

if TYPE_CHECKING:
    from cluster.recipe import Recipe
    from run_store.folder import RunFolder
    from trainer.notify_config import NotifyTarget


def notify(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test message to each target of tracking.notify, without training.

    The recipe names environment variables that have the commands of its targets. Set them where the
    driver runs: in your shell for `transloom train`, in the file of --env-file for a submitted job.
    The exit code is 1 if a target did not accept the message.

    A target in the recipe: tracking: {notify: {targets: [{command_from: TRANSLOOM_NOTIFY, format:
    text}]}}

    Example:

      export TRANSLOOM_NOTIFY='["/usr/bin/apprise", "--config", "/etc/notify.conf"]'

      transloom notify my.yaml
    """
    from cluster.recipe import find_recipe, load_recipe, run_name
    from run_store import RUNS
    from run_store.folder import RunFolder

    path = find_recipe(recipe)
    loaded = load_recipe(path, overrides or [])
    config = loaded.tracking.notify
    if not config.targets:
        raise RecipeError(
            f"{path} has no target for notifications: set tracking.notify.targets, for example to "
            "[{command_from: TRANSLOOM_NOTIFY, format: text}]"
        )
    folder = RunFolder.of(run or RUNS / run_name(path, overrides or []))
    results = [_send_test(target, loaded, folder) for target in config.targets]
    answer(
        {"targets": [asdict(result) for result in results]},
        as_json,
        "\n".join(result.text() for result in results),
        failed=not all(result.delivered for result in results),
    )


@dataclass(frozen=True)
class TargetResult:
    """Result of a test message to one target.

    Attributes:
        variable: the environment variable with the command.
        delivered: whether the target accepted the message.
        seconds: the time of the attempt.
        problem: the reason if it did not accept the message, otherwise None.
    """

    variable: str
    delivered: bool
    seconds: float
    problem: str | None

    def text(self) -> str:
        """Return the result in one line."""
        outcome = f"delivered in {self.seconds:.2f} s" if self.delivered else f"{self.problem}"
        return f"{self.variable}: {outcome}"


def _send_test(target: "NotifyTarget", recipe: "Recipe", run: "RunFolder") -> TargetResult:
    """Send a test message to a target in one attempt."""
    from cluster.notify.delivery import ATTEMPT_SECONDS
    from cluster.notify.notification import Notification, RunEvent
    from cluster.notify.targets import TargetError, open_target

    events = ", ".join(recipe.tracking.notify.events) or "none"
    text = f"Test message for run {run.path.name}. Its notifications are about: {events}."
    notification = Notification.of(RunEvent("test", text), run, recipe.trainer.max_steps)
    began, problem = time.monotonic(), None
    try:
        failure = open_target(target, os.environ).send(notification, ATTEMPT_SECONDS)
        problem = failure.text if failure else None
    except TargetError as error:
        problem = str(error)
    seconds = round(time.monotonic() - began, 3)
    return TargetResult(target.command_from, problem is None, seconds, problem)
