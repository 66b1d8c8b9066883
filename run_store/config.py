"""Settings of checkpoints, and limits of settings that the files of a run repeat."""

from foundation.section import Section, continuable, execution

MAX_WINDOW = 1000  # maximum steps of a spike guard's window, which every checkpoint stores
# Maximum number of probe sentences. A long run saves the attention of each sentence at about forty
# steps.
MAX_PROBES = 4
LONGEST_PROBE = 300  # maximum number of characters of a probe sentence


class CheckpointsConfig(Section):
    """Interval and retention of checkpoints."""

    every_steps: int = continuable(
        500, "Steps between checkpoints; the last step is always saved.", gt=0
    )
    memory_every_steps: int = execution(
        0,
        "Steps between copies of the state in the memory of the nodes, from which a run restarts "
        "after a failure; 0 for none. `transloom plan` recommends a value.",
        ge=0,
    )
    keep_last: int = continuable(3, "Number of newest complete checkpoints to keep.", gt=0)
    keep_best: int = continuable(
        1, "Number of checkpoints with the best scores to keep in addition to keep_last.", ge=0
    )
    best_by: str = continuable(
        "loss", "Validation score by which keep_best ranks checkpoints, such as loss or bleu."
    )
    keep_every_steps: int | None = continuable(
        None, "Interval in steps of the checkpoints that are always kept; null for none.", gt=0
    )
