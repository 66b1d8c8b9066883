"""Errors of a run that its user can act on."""


class TrainerError(Exception):
    """Base of the trainer's own errors; the message names what was found and the remedy."""


class CheckpointError(TrainerError):
    """A checkpoint is missing, damaged, of another model, or cannot be written."""


class DamagedCheckpointError(CheckpointError):
    """The ranks found that a checkpoint's files differ from what was written."""


class CheckpointFormatError(TrainerError):
    """A checkpoint is whole but of a format that this version does not read."""


class RunMismatchError(TrainerError):
    """The recipe or the dataset is not the one that this run was started with."""


class NonFiniteLossError(TrainerError):
    """Too many steps in a row had a loss or gradient that is not finite; none was applied."""


class EngineError(TrainerError):
    """The requested combination of precision, ZeRO stage and device cannot work."""


class ScheduleError(TrainerError):
    """A schedule gives a step no learning rate."""


class NetworkError(TrainerError):
    """A node does not know how the ranks of other nodes reach it."""


class RunInUseError(TrainerError):
    """Another process owns the run."""


class RecordInUseError(TrainerError):
    """A process that should be gone still writes the record; it may end in a while."""


class LeaseLostError(TrainerError):
    """This process owned the run, and no longer does."""


class TranslationError(TrainerError):
    """Sentences could not be translated, for a reason that lies outside the sentences."""


class TextError(TrainerError):
    """A text that a model was given cannot be what it is asked about."""


class MemoryPreflightError(TrainerError):
    """The largest micro-batches of a run do not fit into a rank's memory."""
