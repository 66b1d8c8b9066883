"""Exceptions of the training for problems that a user can solve."""

from run_store.errors import RunError


class NonFiniteLossError(RunError):
    """Too many consecutive steps had a non-finite loss or gradient; none of them was applied."""


class GuardError(RunError):
    """A guard stopped the run, or refused the last of too many skipped steps."""


class SpikeError(GuardError):
    """Too many consecutive steps were skipped, the last one because of a spike."""


class CallbackError(RunError):
    """An observer or guard of an extension raised an exception."""


class EngineError(RunError):
    """The requested combination of precision, ZeRO stage and device is not supported."""


class ScheduleError(RunError):
    """A schedule returns no valid learning rate for a step."""


class NetworkError(RunError):
    """No network interface of a node has the address that other nodes use to reach the node."""


class TranslationError(RunError):
    """Sentences could not be translated, for a reason outside the sentences."""


class TextError(RunError):
    """The model cannot accept a text as its input."""


class MemoryPreflightError(RunError):
    """The largest micro-batches of a run do not fit into a rank's memory."""


class UnequalKernelsError(RunError):
    """Ranks that are to be compared compute with different kernels, so their bits may differ."""
