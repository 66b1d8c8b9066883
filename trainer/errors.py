"""Errors of a run that its user can correct."""


class TrainerError(Exception):
    """Base of the trainer's errors; the message names the cause and the remedy."""


class CheckpointError(TrainerError):
    """A checkpoint is missing, damaged, of another model, or cannot be written."""


class DamagedCheckpointError(CheckpointError):
    """The ranks found that a checkpoint's files differ from its header."""


class CheckpointFormatError(TrainerError):
    """A checkpoint is complete but in a format that this version does not read."""


class RunMismatchError(TrainerError):
    """The recipe or the dataset differs from that with which this run was started."""


class NonFiniteLossError(TrainerError):
    """Too many steps in a row had a loss or gradient that is not finite; none was applied."""


class EngineError(TrainerError):
    """The requested combination of precision, ZeRO stage and device is not supported."""


class ScheduleError(TrainerError):
    """A schedule returns no valid learning rate for a step."""


class NetworkError(TrainerError):
    """A node has no network interface with the address under which other ranks reach it."""


class RunInUseError(TrainerError):
    """Another process owns the run."""


class RecordInUseError(TrainerError):
    """A process that should have ended still writes the record; it may end soon."""


class LeaseLostError(TrainerError):
    """The process owned the run, and no longer does."""


class TranslationError(TrainerError):
    """Sentences could not be translated, for a reason outside the sentences."""


class TextError(TrainerError):
    """A text cannot be an input of the model."""


class MemoryPreflightError(TrainerError):
    """The largest micro-batches of a run do not fit into a rank's memory."""
