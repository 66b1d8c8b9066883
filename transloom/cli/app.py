"""Command line: the application, its groups of commands, and the handling of errors.

Each command is a short function that calls other packages. Exit codes: 0 done, 75 stopped and
resumable, 1 failed, 2 wrong usage or recipe, 130 interrupted. Commands import heavy modules in
their bodies, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated

import typer

from cluster.errors import (
    EXIT_FAILED,
    EXIT_USAGE,
    ClusterError,
    HeadLostError,
    RecipeError,
)
from cluster.ray.orphaned_driver import outlive_raylet
from foundation.errors import DataError
from foundation.openmp import limit_openmp_spin
from foundation.proxies import LOOPBACK, bypass_proxies
from foundation.tasks import tasks_of_command
from foundation.terminal import (
    full_message,
    print_error,
    print_in_any_locale,
    print_line,
    show_tracebacks_visibly,
)
from foundation.wording import join_items
from model.errors import ModelError
from run_store.errors import RunError
from transloom.cli.answer_lines import answer_lines
from transloom.cli.checkpoints import checkpoints_app
from transloom.cli.classify import classify
from transloom.cli.command_group import Commands, CommandsWithDefault
from transloom.cli.compare import compare
from transloom.cli.control import stop, workers
from transloom.cli.dashboard import dashboard
from transloom.cli.data import data_app
from transloom.cli.demo import demo
from transloom.cli.deploy import deploy_app
from transloom.cli.embed import embed
from transloom.cli.evaluate import evaluate
from transloom.cli.exit_code import keep_exit_code
from transloom.cli.explain import explain
from transloom.cli.export import export
from transloom.cli.export_metrics import export_metrics
from transloom.cli.extensions import extensions
from transloom.cli.fields import fields
from transloom.cli.fill import fill
from transloom.cli.generate import generate
from transloom.cli.import_weights import import_weights
from transloom.cli.init import init
from transloom.cli.jobs import jobs_app, submit
from transloom.cli.metrics import metrics
from transloom.cli.model import model_app
from transloom.cli.notify import notify
from transloom.cli.plan import plan
from transloom.cli.prepare import prepare
from transloom.cli.recipes import recipes
from transloom.cli.replay import replay
from transloom.cli.report import report
from transloom.cli.runs import runs_app
from transloom.cli.serve import serve
from transloom.cli.status import status
from transloom.cli.sweep import sweep
from transloom.cli.train import train
from transloom.cli.translate import translate
from transloom.cli.tune_decoding import tune_decoding
from transloom.cli.verify_zero import verify_zero
from transloom.cli.watch import watch

app = typer.Typer(
    cls=Commands,
    name="transloom",
    help="Train Transformer models on one machine or a Ray cluster, for translation, language "
    "modeling, masked language modeling, classification and sentence embeddings. The loss curve "
    "of a recipe does not depend on the number of machines.\n\n"
    "Start with:  [bold]transloom demo[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _help_of(command: Callable[..., None]) -> str:
    """Return the docstring of a command, with a list of the tasks that the command supports."""
    summary, _, rest = cleandoc(command.__doc__ or "").partition("\n\n")
    tasks = tasks_of_command(command.__name__)
    uses = f"For runs of these tasks: {join_items(tasks)}." if tasks else ""
    return "\n\n".join(filter(None, (summary, uses, rest)))


# Commands by panel of `--help`, in the order in which it lists them.
for panel, commands in {
    "Get started": (demo, recipes, init, fields, extensions),
    "Train": (prepare, plan, train, sweep, stop, workers, notify),
    "Inspect": (
        *(watch, status, dashboard, report),
        *(compare, replay, metrics, export_metrics, verify_zero),
    ),
    "Use a model": (
        *(evaluate, tune_decoding, translate, generate, fill, embed, classify),
        *(serve, explain, export),
    ),
    "On a cluster": (submit,),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel, help=_help_of(command))(command)
app.command("import", rich_help_panel="Use a model")(import_weights)
app.command(hidden=True)(answer_lines)
for name, group, panel in (
    ("data", data_app, "Inspect"),
    ("checkpoints", checkpoints_app, "Inspect"),
    ("model", model_app, "Inspect"),
    ("jobs", jobs_app, "On a cluster"),
    ("deploy", deploy_app, "On a cluster"),
):
    app.add_typer(group, name=name, rich_help_panel=panel, cls=Commands)
app.add_typer(runs_app, name="runs", rich_help_panel="Inspect", cls=CommandsWithDefault)


def main() -> None:
    """Run the command line; report a user's mistake in one paragraph and by the exit code."""
    keep_exit_code()
    show_tracebacks_visibly()
    print_in_any_locale()
    limit_openmp_spin()
    bypass_proxies(*LOOPBACK)
    outlive_raylet()
    try:
        app()
    except (ClusterError, DataError, ModelError, RunError) as error:
        print_error(full_message(error))
        if isinstance(error, HeadLostError):
            os._exit(EXIT_FAILED)  # Ray would otherwise search for the head for another minute
        sys.exit(EXIT_USAGE if isinstance(error, RecipeError) else EXIT_FAILED)
    except BrokenPipeError:  # the reader of our output has exited, as `head` does
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        where = f"{error.filename or 'the system'}: " if error.errno else ""
        text = f"{where}{error.strerror or error}" if where else full_message(error)
        if "usable temporary directory" in text:  # words of Python's module tempfile
            text += ". Set TMPDIR to a folder that you can write"
        print_error(text)
        sys.exit(EXIT_FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from cluster.supervision.invocation import own_code

        code = own_code()
        print_line(version("transloom") + (f" ({code})" if code else ""))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Define the options that `transloom` accepts before a command."""
