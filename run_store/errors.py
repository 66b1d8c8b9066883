"""Exceptions for problems with a run and its files that a user can solve."""


class RunError(Exception):
    """Base of a run's errors; the message names the cause and the remedy."""


class CheckpointError(RunError):
    """A checkpoint is missing, damaged, of another model, or cannot be written."""


class DamagedCheckpointError(CheckpointError):
    """The ranks found that a checkpoint's files differ from its header."""


class CheckpointFormatError(RunError):
    """A checkpoint is complete but in a format that this version does not read."""


class RunMismatchError(RunError):
    """The run was started with a different recipe or dataset."""


class NoRunError(RunMismatchError):
    """There is no run at a URL."""


class RunInUseError(RunError):
    """Another process owns the run."""


class RecordInUseError(RunError):
    """A process that should have ended still writes the metrics file; a later retry may succeed."""


class LeaseLostError(RunError):
    """Another process has taken over the run that this process owned, or has removed its files."""
