"""Run rows of a stage in a child process, and report each row through a pipe.

    python -m benchmarks.gpu_check.child STAGE MODULE DEVICE FOLDER DESCRIPTOR KEY …

Each line of the report is a JSON object: {"machine": …} once, {"begins": KEY} before a row, and
{"row": …} after it. The child ends after the first row that fails, because an error on a GPU can
make all later operations of the process fail. The runner starts another child for the other rows.
"""

import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from benchmarks.gpu_check.machine import Machine
from benchmarks.gpu_check.outcomes import (
    CannotRunError,
    Device,
    Measurement,
    Work,
    WrongResultError,
)
from benchmarks.gpu_check.results import Row

MAX_DETAIL = 600


def run_row(module: Any, stage: str, key: str, work: Work) -> Row:
    """Run one row; an exception becomes the row's result."""
    name, _, argument = key.partition(":")
    started = time.monotonic()
    row = Row(stage, key, "passed")
    try:
        found: Measurement = getattr(module, name)(work, *([argument] if argument else []))
        aim = None if found.aim is None else "met" if found.aim else "missed"
        row = replace(row, figure=found.figure, unit=found.unit, detail=found.detail, aim=aim)
    except CannotRunError as reason:
        row = replace(row, result="skipped", detail=str(reason))
    except WrongResultError as failure:
        row = replace(
            row, result="failed", detail=str(failure), figure=failure.figure, unit=failure.unit
        )
    except Exception as error:
        traceback.print_exc()
        row = replace(row, result="failed", detail=f"{type(error).__name__}: {error}")
    seconds = round(time.monotonic() - started, 2)
    return replace(row, seconds=seconds, detail=row.detail[:MAX_DETAIL])


def main() -> int:
    stage, module_name, device, folder, descriptor, *keys = sys.argv[1:]
    work = Work(cast(Device, device), Path(folder))
    with os.fdopen(int(descriptor), "w") as report:

        def tell(values: dict[str, Any]) -> None:
            print(json.dumps(values), file=report, flush=True)

        module = importlib.import_module(module_name)
        tell({"machine": asdict(Machine.of(work.device))})
        for key in keys:
            tell({"begins": key})
            row = run_row(module, stage, key, work)
            tell({"row": asdict(row)})
            if row.result == "failed":
                break
    # Exit without the interpreter's shutdown, in which a library can hang after a failed row.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
