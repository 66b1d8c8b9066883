"""Progress in which every value differs from its initial value and from the others."""

from data_pipeline.batching.plan import Cursor
from run_store.checkpoints.format import SPIKE_GUARD, EarlyStoppingState, Parent
from trainer.state.progress import Progress
from trainer.tasks.translation import translation_scores

FAR = Progress(
    step=70,
    cursor=Cursor(3, 2, 1),
    data_digest="ab" * 32,
    target_tokens_seen=123_456,
    scores=translation_scores(2.5, 30.5),
    validation_due=True,
    early_stopping=EarlyStoppingState(
        metric="bleu", best=31.5, best_step=60, validations_since_best=4
    ),
    skipped_steps=6,
    skipped_in_a_row=2,
    skipped_spikes=3,
    guard_states={
        SPIKE_GUARD: {"losses": [2.5, 2.25], "grad_norms": [0.5, 0.125]},
        "callbacks.loss_ceiling": {"mean": 2.375},
    },
    parent=Parent(run_id="abcd1234", step=50, sha256="cd" * 32),
)
