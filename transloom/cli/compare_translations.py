"""Work of `transloom compare RUN RUN… --test NAME`: find or make translations, and compare them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from foundation.terminal import Terminal, bars_by_name, note, percentage_bars, warn
from foundation.wording import counted, join_items
from model.config.transformer import DecodingConfig
from run_store.checkpoints.checkpoint import Checkpoint, sha256_of
from run_store.checkpoints.folder_names import STEP, checkpoint_name
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from trainer.recipe import identity_differences
from transloom.cli.load_translator import load_translator, trained_recipe
from transloom.cli.run_urls import existing_run, named_run, writable
from transloom.inference.breakdowns import frequencies_of
from transloom.inference.chosen_checkpoint import find_checkpoint
from transloom.inference.evaluation import dataset_of
from transloom.inference.hypotheses import Hypotheses, find_hypotheses, make_hypotheses, origin_of
from transloom.inference.system_comparison import (
    Candidate,
    SystemComparison,
    TestSet,
    compare_systems,
)


@dataclass(frozen=True)
class _Found:
    """Checkpoint of a run with its search settings, dataset and test set, before translation."""

    name: str
    run: RunFolder
    checkpoint: Checkpoint
    seed: int
    decoding: DecodingConfig
    store: DatasetStore
    manifest: Manifest
    heldout: HeldOut


def compare_on_test_set(
    runs: Sequence[str],
    test_set: str,
    dataset: str | None,
    processes: int | None,
    console: Terminal,
) -> SystemComparison:
    """Compare runs on a test set, with the first run as the baseline.

    Args:
        runs: names of the form RUN or RUN@CHECKPOINT, where CHECKPOINT is a step or the name of an
            average.
        dataset: folder or URL of the runs' dataset, if it has moved.

    Raises:
        RunMismatchError: a run does not exist or does not translate, or the test sets differ.
        CheckpointError, DatasetError: a run has no such checkpoint, or the dataset has no such set.
    """
    if twice := sorted({name for name in runs if runs.count(name) > 1}):
        raise RunMismatchError(
            f"{join_items(twice)} is named more than once: name each run once, or name several "
            "checkpoints of a run as RUN@STEP"
        )
    found = [_find(name, test_set, dataset) for name in runs]
    for other in found[1:]:
        _require_same_set(found[0], other, test_set)
    first = found[0]
    kinds: list[dict[str, Any]] = []
    with percentage_bars(console) as progress:
        report = bars_by_name(progress)
        candidates = []
        for one in found:
            with writable(one.run) as written:
                hypotheses = _hypotheses(one, test_set, written, processes, report)
                candidates.append(_candidate(one, hypotheses, _kind(one, kinds)))
        files = first.manifest.heldout[test_set].files
        references = first.heldout.texts[TARGET]
        count = partial(report, "words of the training data")
        frequencies = frequencies_of(first.store, first.manifest, references, count)
        return compare_systems(
            TestSet(
                name=test_set,
                sources=first.heldout.texts[SOURCE],
                references=references,
                sources_sha256=files[SOURCE].sha256,
                references_sha256=files[TARGET].sha256,
            ),
            candidates,
            frequencies,
            report,
        )


def _find(name: str, test_set: str, dataset: str | None) -> _Found:
    path, checkpoint = named_run(name)
    run = existing_run(path)
    found, passed_over = find_checkpoint(run, checkpoint)
    for reason in passed_over:
        warn(f"{reason}; using {found.path}")
    recipe = trained_recipe(found, dataset)
    if recipe.task != "translation":
        raise RunMismatchError(
            f"{path} was trained for {recipe.task}, but --test compares only translation runs: "
            "score this run with `transloom evaluate` instead"
        )
    store, manifest = dataset_of(found, recipe.data)
    heldout = load_heldout(store, manifest, test_set)
    assert isinstance(recipe.decoding, DecodingConfig)
    return _Found(name, run, found, recipe.seed, recipe.decoding, store, manifest, heldout)


def _require_same_set(first: _Found, other: _Found, test_set: str) -> None:
    """Check that both runs' test sets have the same sentences and the same references.

    Raises:
        RunMismatchError: the sentences or references differ; the message has the hash of each file.
    """
    ours, theirs = (one.manifest.heldout[test_set].files for one in (first, other))
    for field, what in ((SOURCE, "sources"), (TARGET, "references")):
        if ours[field].sha256 != theirs[field].sha256:
            raise RunMismatchError(
                f"The {what} of {test_set} differ: sha256 {ours[field].sha256[:16]}… "
                f"({counted(len(first.heldout), 'line')}) in the dataset of {first.name}, "
                f"{theirs[field].sha256[:16]}… ({counted(len(other.heldout), 'line')}) in the "
                f"dataset of {other.name}. Scores on different sentences cannot be compared: name "
                "runs whose datasets were prepared with the same files in data.tests"
            )


def _hypotheses(
    one: _Found, test_set: str, written: RunFolder, processes: int | None, report: Any
) -> Hypotheses:
    """Return the run's translations of the test set: stored by an earlier command, or new.

    Args:
        written: the run folder to which new translations are written.
    """
    origin = origin_of(one.checkpoint, test_set, one.heldout, one.decoding, "fp32")
    if there := find_hypotheses(one.run.translations, origin):
        note(f"{one.name}: using the hypotheses of this checkpoint in {there.file}")
        return there
    return make_hypotheses(
        load_translator(one.run.path, checkpoint_name(one.checkpoint.path)),
        test_set,
        one.heldout,
        written.translations,
        partial(report, f"translations of {one.name}"),
        processes,
    )


def _kind(one: _Found, known: list[dict[str, Any]]) -> str:
    """Return an id of the run's recipe and search settings; it does not depend on the seed.

    Args:
        known: the combinations found so far, in the order of their ids; the function appends a new
            combination.
    """
    identity = {**one.checkpoint.header.identity, "seed": None}
    search = {"decoding": one.decoding.model_dump(mode="json")}
    for number, other in enumerate(known):
        if other["search"] == search and not identity_differences(other["identity"], identity):
            return str(number)
    known.append({"identity": identity, "search": search})
    return str(len(known) - 1)


def _candidate(one: _Found, hypotheses: Hypotheses, kind: str) -> Candidate:
    return Candidate(
        name=one.name,
        run_id=one.run.card().id,
        checkpoint=one.checkpoint.path.name.removeprefix(STEP),
        step=one.checkpoint.step,
        seed=one.seed,
        recipe=kind,
        beam_size=one.decoding.beam_size,
        length_penalty=one.decoding.length_penalty,
        # Lines of the file, split as sacreBLEU splits them.
        hypotheses=hypotheses.file.read_text(encoding="utf-8").split("\n")[:-1],
        file=hypotheses.file,
        sha256=sha256_of(hypotheses.file),
        reused=hypotheses.reused,
    )
