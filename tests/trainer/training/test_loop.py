"""The training loop, step by step: what is counted, kept and discarded, and in which order."""

from dataclasses import replace

import pytest
import torch
from support.ranks.engine_jobs import VOCABULARY, micro_batch
from support.ranks.loop_parts import (
    LOSSES,
    OTHER_RANKS_TOKENS,
    SAVE_SECONDS,
    SLOTS,
    Story,
    make_trainer,
    recipe,
)

from data_pipeline.batching.plan import Cursor
from run_store.record.corruption import ReductionError
from run_store.record.metrics_lines import StepLine
from trainer.errors import NonFiniteLossError
from trainer.registries.callbacks import StepObserver
from trainer.state.digest import START, fold
from trainer.state.progress import Progress
from trainer.tasks.batch import to_device
from trainer.tasks.randomness import seed_torch
from trainer.tasks.translation import translation_scores
from trainer.training.schedule import learning_rate


def target_tokens(step):
    """Return the target tokens of a whole step."""
    batches = [micro_batch((step - 1) * SLOTS, slot) for slot in range(SLOTS)]
    return OTHER_RANKS_TOKENS + sum(batch.tokens("tgt") for batch in batches)


def digest_after(step, before=START):
    """Return the digest of all data up to a step."""
    digest = before
    for number in range(1, step + 1):
        batches = [micro_batch((number - 1) * SLOTS, slot) for slot in range(SLOTS)]
        fed = [to_device(batch, VOCABULARY, torch.device("cpu")) for batch in batches]
        digest = fold(digest, [batch.digest for batch in fed])
    return digest


@pytest.fixture
def story():
    return Story()


def test_validations_and_checkpoints_are_made_at_their_steps(story, tmp_path):
    trainer = make_trainer(story, recipe(max_steps=7, validate_every_steps=3), tmp_path)
    assert trainer.train() == "finished"
    assert [event[:2] for event in story.of("validated", "saved")] == [
        ("saved", 2),
        ("validated", 3),
        ("saved", 4),
        ("validated", 6),
        ("saved", 6),
        ("validated", 7),
        ("saved", 7),
    ]
    assert [final for _, final in story.saved] == [False, False, False, True]


@pytest.mark.parametrize(("ema", "weights"), [(False, "weights"), (True, "average")])
def test_probes_use_the_validated_weights_and_precede_the_checkpoint(story, tmp_path, ema, weights):
    """A run resumed at the checkpoint does not probe its step again."""
    trainer = make_trainer(
        story, recipe(max_steps=6, validate_every_steps=3), tmp_path, ema=ema, probes=True
    )
    trainer.train()
    assert story.of("probed") == [("probed", step, weights) for step in (0, 1, 2, 3, 4, 6)]
    assert [event[:2] for event in story.of("probed", "validated", "saved")][-3:] == [
        ("probed", 6),
        ("validated", 6),
        ("saved", 6),
    ]
    later = Story()
    make_trainer(later, recipe(max_steps=6), tmp_path, Progress(step=3), probes=True).train()
    assert [event[1] for event in later.of("probed")] == [4, 6]


def test_a_checkpoint_has_only_scores_of_its_step(story, tmp_path):
    """The checkpoint of step 4 has no scores of the validation at step 3."""
    make_trainer(story, recipe(max_steps=7, validate_every_steps=3), tmp_path).train()
    scores = {p.step: p.scores for p, _ in story.saved}
    assert scores == {
        2: {},
        4: {},
        6: translation_scores(16.0, 106.0),
        7: translation_scores(17.0, 107.0),
    }


def test_a_skipped_step_discards_the_scores_before_it(tmp_path):
    story = Story(bad={4})
    make_trainer(story, recipe(max_steps=5, validate_every_steps=3), tmp_path).train()
    (progress, _) = story.saved[1]
    assert (progress.step, progress.scores) == (4, {})


def test_each_step_adds_to_the_progress_and_is_recorded(story, tmp_path):
    make_trainer(story, recipe(max_steps=4), tmp_path).train()
    seen = 0
    for step, line in enumerate(story.lines[:4], 1):
        seen += target_tokens(step)
        assert (line.kind, line.step) == ("train", step)
        assert line.loss == SLOTS * LOSSES["smoothed"] / target_tokens(step)
        assert line.nll == SLOTS * LOSSES["nll"] / target_tokens(step)
        assert line.target_tokens == target_tokens(step)
        assert line.target_tokens_seen == seen
        assert line.offset == (step - 1) * SLOTS
        assert line.data_digest == digest_after(step)
    (progress, _) = story.saved[-1]
    assert (progress.step, progress.cursor) == (4, Cursor(0, 0, 4 * SLOTS))
    assert (progress.target_tokens_seen, progress.data_digest) == (seen, digest_after(4))


def test_a_resumed_run_counts_from_the_progress_of_its_checkpoint(story, tmp_path):
    before = Progress(
        step=4, cursor=Cursor(2, 1, 4 * SLOTS), target_tokens_seen=500, skipped_steps=7
    )
    make_trainer(story, recipe(max_steps=5), tmp_path, before).train()
    (line,) = (line for line in story.lines if line.kind == "train")
    assert (line.step, line.epoch, line.window) == (5, 2, 1)
    assert line.target_tokens_seen == 500 + target_tokens(5)
    assert story.saved[-1][0].skipped_steps == 7


def test_checkpoint_time_is_recorded_only_in_the_line_of_the_next_step(story, tmp_path):
    make_trainer(story, recipe(max_steps=4), tmp_path).train()
    stalls = [line.checkpoint_stall_seconds for line in story.lines if line.kind == "train"]
    assert stalls == [0.0, 0.0, SAVE_SECONDS, 0.0]


def test_each_step_is_applied_and_recorded_with_its_scheduled_rate(tmp_path):
    story, training = Story(), recipe(max_steps=3)
    make_trainer(story, training, tmp_path).train()
    rates = [learning_rate(training.trainer.schedule, s, training.model.width) for s in (1, 2, 3)]
    assert [rate for _, _, rate in story.of("applied")] == rates
    assert [line.learning_rate for line in story.lines[:3]] == rates


def test_each_slot_has_its_dropout_seed_and_the_tokens_of_the_whole_step(tmp_path):
    """A rank with one slot less than others computes slots 1 and 2, then a dummy."""
    story, training = Story(), recipe(max_steps=2)
    make_trainer(story, training, tmp_path, slots=range(1, 3)).train()
    for step in (1, 2):
        passes = [done for done in story.passes if done["step"] == step]
        assert [done["is_dummy"] for done in passes] == [False, False, True]
        assert [done["is_accumulation_boundary"] for done in passes] == [False, False, True]
        for slot, done in zip((1, 2), passes, strict=False):
            seed_torch(training.seed, "dropout", step, slot)
            assert done["seed"] == torch.initial_seed()
        (tokens,) = {done["units_global"] for done in passes}
        assert tokens == story.lines[step - 1].target_tokens > OTHER_RANKS_TOKENS


def test_skipped_steps_are_counted_and_their_data_is_not_repeated(tmp_path):
    story = Story(bad={2, 3, 5, 6}, overflows={8})
    make_trainer(story, recipe(max_steps=8, stop_after_skipped_steps=3), tmp_path).train()
    lines = [line for line in story.lines if isinstance(line, StepLine)]
    assert "".join(line.kind[0] for line in lines) == "tsstssts"
    skipped = [line for line in lines if line.kind == "skipped"]
    assert [line.in_a_row for line in skipped] == [1, 2, 1, 2, 1]
    assert [line.skipped_steps for line in skipped] == [1, 2, 3, 4, 5]
    assert [line.offset for line in lines] == [n * SLOTS for n in range(8)]
    assert [line.data_digest for line in lines] == [digest_after(n) for n in range(1, 9)]
    (progress, _) = story.saved[-1]
    assert progress.target_tokens_seen == sum(target_tokens(step) for step in (1, 4, 7))
    assert progress.cursor == Cursor(0, 0, 8 * SLOTS)
    assert (progress.skipped_steps, progress.skipped_in_a_row) == (5, 1)


def test_too_many_skipped_steps_end_the_run_after_the_last_checkpoint_is_written(tmp_path):
    story = Story(bad={3, 4, 5})
    trainer = make_trainer(story, recipe(max_steps=9, stop_after_skipped_steps=3), tmp_path)
    with pytest.raises(NonFiniteLossError, match="3 steps in a row, up to step 5"):
        trainer.train()
    assert story.events[-1] == ("written", 5)
    assert story.lines[-1].step == 5


def test_steps_skipped_before_a_restart_count_towards_the_limit(tmp_path):
    story = Story(bad={5})
    before = Progress(step=4, skipped_in_a_row=2)
    trainer = make_trainer(story, recipe(max_steps=9, stop_after_skipped_steps=3), tmp_path, before)
    with pytest.raises(NonFiniteLossError, match="3 steps in a row, up to step 5"):
        trainer.train()


def test_the_average_includes_only_applied_steps(tmp_path):
    """The average ignores a step with a non-finite slot, and one whose sum overflows."""
    story = Story(bad={2}, overflows={4})
    make_trainer(story, recipe(max_steps=5), tmp_path, ema=True).train()
    done = [event[:2] for event in story.of("applied", "discarded", "averaged")]
    assert done == [
        ("applied", 1),
        ("averaged", 1),
        ("discarded", 2),
        ("applied", 3),
        ("averaged", 3),
        ("applied", 4),  # the engine ignores this step
        ("applied", 5),
        ("averaged", 5),
    ]


@pytest.mark.parametrize(("ema", "model"), [(False, "weights"), (True, "average")])
def test_the_average_is_validated_if_there_is_one(story, tmp_path, ema, model):
    make_trainer(story, recipe(max_steps=1), tmp_path, ema=ema).train()
    assert story.of("validated") == [("validated", 1, model)]


def test_a_step_is_repeated_until_its_gradients_fit_their_grids(tmp_path):
    """The first step of a run has no grids yet, so its repetition is not reported."""
    story = Story(refits={1: [[]], 2: [["w"], ["w", "v"]]})
    make_trainer(story, recipe(max_steps=3), tmp_path).train()
    passes = [[done["step"] for done in story.passes].count(step) for step in (1, 2, 3)]
    assert passes == [2 * SLOTS, 3 * SLOTS, SLOTS]
    assert [event[1] for event in story.of("applied")] == [1, 2, 3]
    assert story.of("repeated") == [
        ("repeated", 2, {"grids_widened": ["w"]}),
        ("repeated", 2, {"grids_widened": ["w", "v"]}),
    ]


def test_a_step_with_wrong_sums_is_repeated_and_applied_once(tmp_path):
    story = Story(refits={2: [["w"]]}, wrong={2: [["w", "v"]]})
    make_trainer(story, recipe(max_steps=3), tmp_path).train()
    passes = [[done["step"] for done in story.passes].count(step) for step in (1, 2, 3)]
    assert passes == [SLOTS, 3 * SLOTS, SLOTS]
    assert [event[1] for event in story.of("applied")] == [1, 2, 3]
    ((_, step, details),) = story.of("wrong_reduction")
    assert (step, details["checked_step"], details["parameters"]) == (2, 2, ["w", "v"])
    assert not details["is_repeated"]


def test_sums_that_are_wrong_twice_end_the_run_without_applying_the_step(tmp_path):
    many = [f"w{number}" for number in range(20)]
    story = Story(wrong={3: [["w"], many]})
    with pytest.raises(ReductionError) as error:
        make_trainer(story, recipe(max_steps=9), tmp_path).train()
    assert [event[1] for event in story.of("applied")] == [1, 2]
    assert [progress.step for progress, _ in story.saved] == [2]
    first, second = (details for _, _, details in story.of("wrong_reduction"))
    assert (first["is_repeated"], second["is_repeated"]) == (False, True)
    assert (len(second["parameters"]), second["parameter_count"]) == (8, 20)
    assert "w0, w1 and 18 other parameters" in str(error.value)
    assert "in step 3 again" in str(error.value)


def test_sums_of_a_non_finite_step_are_not_verified(tmp_path):
    story = Story(bad={2}, wrong={2: [["w"]]})
    make_trainer(story, recipe(max_steps=3), tmp_path).train()
    assert story.wrong == {2: [["w"]]}
    assert story.of("wrong_reduction") == []


def test_a_stop_request_saves_a_final_checkpoint_of_its_step(tmp_path):
    story = Story(stops={3})
    assert make_trainer(story, recipe(max_steps=9), tmp_path).train() == "stopped"
    assert [(p.step, final) for p, final in story.saved] == [(2, False), (3, True)]
    assert [event[:2] for event in story.of("applied", "preempted")][-2:] == [
        ("applied", 3),
        ("preempted", 3),
    ]
    assert not story.saved[-1][0].validation_due


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_interrupted_validation_is_made_first_after_resuming(tmp_path, interrupted):
    """The stop request arrives before the validation, or interrupts it."""
    training = recipe(max_steps=9, validate_every_steps=3)
    story = Story(scores={3: None}) if interrupted else Story(stops={3})
    assert make_trainer(story, training, tmp_path).train() == "stopped"
    assert len(story.of("validated")) == interrupted
    (saved, final) = story.saved[-1]
    assert (saved.step, saved.validation_due, saved.scores, final) == (3, True, {}, True)

    again = Story(scores={3: None})  # the next start is stopped during the validation, too
    assert make_trainer(again, training, tmp_path, replace(saved)).train() == "stopped"
    assert again.of("applied", "saved") == []

    last = Story()
    assert make_trainer(last, training, tmp_path, replace(saved)).train() == "finished"
    assert [event[:2] for event in last.of("validated", "applied", "saved")][:3] == [
        ("validated", 3),
        ("applied", 4),
        ("saved", 4),
    ]
    assert not last.saved[0][0].validation_due


def test_a_run_without_a_new_best_stops_early_with_a_final_checkpoint(tmp_path):
    story = Story(scores={3: 2.0, 6: 1.0, 9: 1.5, 12: 1.1})
    training = recipe(max_steps=99, validate_every_steps=3, early_stopping={"patience": 2})
    assert make_trainer(story, training, tmp_path).train() == "finished"
    (progress, final) = story.saved[-1]
    assert (progress.step, final) == (12, True)
    state = progress.early_stopping
    assert (state.best, state.best_step, state.validations_since_best) == (1.0, 6, 2)


def test_a_step_after_a_validation_a_probe_or_a_checkpoint_counts_as_interrupted(tmp_path):
    """So does a repeated step. Checkpoints are at steps 2, 4, …, validations at 5, 10, …"""
    interrupted = []

    class Observer(StepObserver):
        def after_step(self, view):
            interrupted.extend([view.step] * view.is_interrupted)
            return {}

    training = recipe(max_steps=26, validate_every_steps=5)
    story = Story(refits={22: [["w"]]}, wrong={23: [["w"]]})
    make_trainer(story, training, tmp_path, probes=True, observers=[Observer()]).train()
    saved, validated = set(range(2, 26, 2)), {5, 10, 15, 20, 25}
    probed = {0, 1, 2, 3, 4, 6, 8, 12, 16, 24}
    assert interrupted == sorted({step + 1 for step in saved | validated | probed} | {22, 23})
