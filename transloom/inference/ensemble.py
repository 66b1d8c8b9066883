"""Ensembles of runs, whose predicted probabilities are averaged at each step of the search.

    sentences ─▶ each run's source tokens ─▶ each run's network ─▶ mean of probabilities ─▶ search

All runs have the same target tokenizer, so that a token id means the same in all of them. Their
source tokenizers may differ; a batch then has one source field per tokenizer. Papers usually report
ensembles of runs that differ only in their seed (Sutskever et al. 2014, §3.4).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config.transformer import ModelConfig
from model.networks.transformer import Transformer
from run_store.checkpoints.checkpoint import Checkpoint, sha256_of
from run_store.checkpoints.format import HEADER
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from transloom.inference.searchers import OwnSearcher, Searcher, SearchOrigin, search_together
from transloom.inference.trained_network import TrainedNetwork, Weights

# Maximum number of members listed in the name of an ensemble. If there are more members, the name
# lists the first ones and the number of the remaining members.
MEMBERS_NAMED = 4


@dataclass(frozen=True)
class Ensemble:
    """Several runs' networks, with everything that a translator needs to use them together.

    Attributes:
        members, checkpoints: weights and checkpoint of each run, in the given order.
        name: replaces the checkpoint's name in the file names of hypotheses. It consists of the
            members' RUN@STEP and the first digits of `sha256`.
        sha256: hash of the hashes of the members' checkpoints.
        tokenizers: tokenizers of the target field and of each source field, by the field's name.
        longest_trained: maximum tokens of a source that all members were trained on, or None if
            unknown.
        other_configs: model configurations of the members except the first.
    """

    members: tuple[Weights, ...]
    checkpoints: tuple[Checkpoint, ...]
    name: str
    sha256: str
    tokenizers: dict[str, Tokenizer]
    longest_trained: int | None
    other_configs: tuple[ModelConfig, ...]
    searcher: Searcher


def join(networks: Sequence[TrainedNetwork]) -> Ensemble:
    """Combine networks into an ensemble.

    Raises:
        RunMismatchError: the networks differ in their target tokenizer, in the first token of their
            translations, or in their number of context sentences.
    """
    contexts = [network.recipe.data.sentences_before for network in networks]
    reason = "the runs would read different texts"
    _require_equal(networks, "data.context_sentences", contexts, reason)
    fields = _source_fields(networks)
    transformers = [n.model for n in networks if isinstance(n.model, Transformer)]
    assert len(transformers) == len(networks)
    starts = [model.config.decoder_start for model in transformers]
    reason = "their translations begin with different tokens"  # a joint search has one first token
    _require_equal(networks, "model.decoder_start", starts, reason)
    of_pairs = [n.recipe.data for n in networks if isinstance(n.recipe.data, PairDataConfig)]
    limits = [data.max_source_length for data in of_pairs if data.max_source_length is not None]
    members = tuple(network.weights for network in networks)
    hashes = [sha256_of(network.checkpoint.path / HEADER) for network in networks]
    sha256 = hashlib.sha256("".join(f"{found}\n" for found in hashes).encode()).hexdigest()
    sources = {f: n.tokenizers[SOURCE] for f, n in zip(fields, networks, strict=True)}
    return Ensemble(
        members=members,
        checkpoints=tuple(network.checkpoint for network in networks),
        name=_name(members, sha256),
        sha256=sha256,
        tokenizers={**sources, TARGET: networks[0].tokenizers[TARGET]},
        longest_trained=min(limits, default=None),
        other_configs=tuple(model.config for model in transformers[1:]),
        searcher=OwnSearcher(
            partial(search_together, transformers, fields), SearchOrigin(members, fields)
        ),
    )


def _name(members: Sequence[Weights], sha256: str) -> str:
    named = [f"{member.run.resolve().name}@{member.checkpoint}"[:40] for member in members]
    if len(named) > MEMBERS_NAMED:
        named = [*named[:MEMBERS_NAMED], f"{len(named) - MEMBERS_NAMED}-more"]
    return f"ensemble-{'+'.join(named)}-{sha256[:8]}"


def _source_fields(networks: Sequence[TrainedNetwork]) -> tuple[str, ...]:
    """Return the batch field that each network reads as its source: one per source tokenizer.

    Raises:
        RunMismatchError: the runs have different target tokenizers.
    """
    manifests = [Manifest.load(open_store(RunFolder(n.weights.run).dataset)) for n in networks]
    targets = [manifest.tokenizers[TARGET].sha256 for manifest in manifests]
    for network, target in zip(networks, targets, strict=True):
        if target != targets[0]:
            raise RunMismatchError(
                f"The target tokenizers of {networks[0].weights.run} (sha256 {targets[0][:16]}…) "
                f"and {network.weights.run} ({target[:16]}…) differ, so the predictions of "
                "these runs cannot be averaged. Name runs with the same target tokenizer"
            )
    fields: dict[str, str] = {}
    for manifest in manifests:
        number = len(fields) + 1
        fields.setdefault(
            manifest.tokenizers[SOURCE].sha256, SOURCE if number == 1 else f"{SOURCE}.{number}"
        )
    return tuple(fields[manifest.tokenizers[SOURCE].sha256] for manifest in manifests)


def _require_equal(
    networks: Sequence[TrainedNetwork], setting: str, values: Sequence[object], effect: str
) -> None:
    """Check that the runs have the same value of a setting.

    Args:
        effect: the effect of different values, for the message.

    Raises:
        RunMismatchError: the values differ.
    """
    for network, value in zip(networks, values, strict=True):
        if value != values[0]:
            raise RunMismatchError(
                f"{setting} is {values[0]} in {networks[0].weights.run} and {value} in "
                f"{network.weights.run}, so {effect}. Name runs with equal values"
            )
