"""Read cases in a separate process with bounded memory: read, refused, or a finding.

    jobs, a line of JSON each ──python -m support.fuzz.cases──▶ their outcomes, a line each

If the process ends before it has written all outcomes, the next job is the one that ended it.
"""

import json
import re
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from support.fuzz.runner import READ, REFUSED
from support.fuzz.target import Target

# memory that a case may use in addition to that of the process before the case
MEMORY_BYTES = 256 * 1024**2
# Limits of the calls of Python functions. They are enough for YAML of some kilobytes, which is
# parsed character by character, and far below the calls of a loop over a number in a file.
CALLS, CALLS_PER_BYTE = 200_000, 200
# Time limit, which ends a loop without function calls. It is long, so that no finding depends on a
# busy machine.
CPU_SECONDS = 120
LONGEST_MESSAGE = 20_000


class TooMuchWorkError(BaseException):
    """Raised when a case causes too many calls; no exception handler of the code catches it."""


def outcome(target: Target, data: bytes) -> str:
    """Return `read`, `refused`, or a finding in one line, which is the same for equal findings."""
    limit = CALLS + CALLS_PER_BYTE * len(data)
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"
        if calls > limit:
            sys.setprofile(None)
            raise TooMuchWorkError(f"more than {limit:,} calls")

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        sys.setprofile(count)
        try:
            target.read(data, Path(folder))
        except target.refusals as error:
            sys.setprofile(None)
            message = str(error)
            if not 10 <= len(message) <= LONGEST_MESSAGE:
                return f"a message of {len(message)} characters ({type(error).__name__})"
            return REFUSED
        except (Exception, TooMuchWorkError) as error:
            sys.setprofile(None)
            return _described(error)
        finally:
            sys.setprofile(None)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return READ


def _described(error: BaseException) -> str:
    """Return the error's type, and the last of our functions in its traceback."""
    ours = [
        f"{Path(frame.filename).name}:{frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and "/lib/python" not in frame.filename
    ]
    return f"{type(error).__name__} in {ours[-1] if ours else '?'}: {_short(str(error))}"


def _short(text: str) -> str:
    return re.sub(r"\d+", "N", ascii(text)[:80])


def _bound_memory() -> None:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmData:\s+(\d+) kB", status)
    assert found
    limit = int(found[1]) * 1024 + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    from support.fuzz.targets import TARGETS  # loads all modules under test

    jobs = [json.loads(line) for line in sys.stdin]
    _bound_memory()
    for name, number, file in jobs:
        target = TARGETS[name]
        data = Path(file).read_bytes() if file else target.case(number)
        print(json.dumps(outcome(target, data)), flush=True)


if __name__ == "__main__":
    main()
