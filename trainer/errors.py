"""Exceptions for problems that a user can solve."""


class TrainerError(Exception):
    """Base of the trainer's errors; the message names the cause and the remedy."""


class CheckpointError(TrainerError):
    """A checkpoint is missing, damaged, of another model, or cannot be written."""


class DamagedCheckpointError(CheckpointError):
    """The ranks found that a checkpoint's files differ from its header."""


class CheckpointFormatError(TrainerError):
    """A checkpoint is complete but in a format that this version does not read."""


class RunMismatchError(TrainerError):
    """The recipe or the dataset differs from the one with which the run was started."""


class NoRunError(RunMismatchError):
    """There is no run at a URL."""


class NonFiniteLossError(TrainerError):
    """Too many consecutive steps had a non-finite loss or gradient; none of them was applied."""


class GuardError(TrainerError):
    """A guard ended the run: it stopped it, or refused the last of too many skipped steps."""


class SpikeError(GuardError):
    """Too many consecutive steps were skipped, the last one because of a spike."""


class CallbackError(TrainerError):
    """An observer or guard of an extension raised an exception."""


class EngineError(TrainerError):
    """The requested combination of precision, ZeRO stage and device is not supported."""


class ScheduleError(TrainerError):
    """A schedule returns no valid learning rate for a step."""


class NetworkError(TrainerError):
    """No network interface of a node has the address that other nodes use to reach the node."""


class RunInUseError(TrainerError):
    """Another process owns the run."""


class RecordInUseError(TrainerError):
    """A process that should have ended still writes the metrics file; a later retry may succeed."""


class LeaseLostError(TrainerError):
    """Another process has taken over the run that this process owned, or has removed its files."""


class TranslationError(TrainerError):
    """Sentences could not be translated, for a reason outside the sentences."""


class TextError(TrainerError):
    """The model cannot accept a text as its input."""


class MemoryPreflightError(TrainerError):
    """The largest micro-batches of a run do not fit into a rank's memory."""


class UnequalKernelsError(TrainerError):
    """Ranks that are to be compared compute with different kernels, so their bits may differ."""
