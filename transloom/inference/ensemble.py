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
from trainer.checkpoints.format import HEADER, Checkpoint, sha256_of
from trainer.errors import RunMismatchError
from trainer.runs.folder import RunFolder
from transloom.inference.search_processes import Find, search_together
from transloom.inference.searchers import OwnSearcher, Searcher
from transloom.inference.trained_network import TrainedNetwork, Weights, load_network

# Maximum number of members listed in the name of an ensemble. If there are more members, the name
# lists the first ones and the number of the remaining members.
MEMBERS_NAMED = 4


@dataclass(frozen=True)
class EnsembleOrigin:
    """Origin of a search with several networks, from which any process can load it.

    Attributes:
        members: the weights of each network.
        fields: the field of a batch that each network reads as its source.
    """

    members: tuple[Weights, ...]
    fields: tuple[str, ...]

    def open(self) -> Find:
        """Load the networks; see `transloom.inference.search_processes.Origin`."""
        models = []
        for member in self.members:
            found = load_network(member.run, member.checkpoint, "cpu", member.precision)
            assert isinstance(found.model, Transformer)
            models.append(found.model)
        return partial(search_together, models, self.fields)


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
    _require_one_context(networks)
    fields = _source_fields(networks)
    models = [network.model for network in networks]
    of_pairs = [n.recipe.data for n in networks if isinstance(n.recipe.data, PairDataConfig)]
    assert all(isinstance(model, Transformer) for model in models)
    transformers = [model for model in models if isinstance(model, Transformer)]
    _require_one_start(networks, transformers)
    limits = [data.max_source_length for data in of_pairs if data.max_source_length is not None]
    hashes = [sha256_of(network.checkpoint.path / HEADER) for network in networks]
    sha256 = hashlib.sha256("".join(f"{found}\n" for found in hashes).encode()).hexdigest()
    sources = {f: n.tokenizers[SOURCE] for f, n in zip(fields, networks, strict=True)}
    return Ensemble(
        members=tuple(network.weights for network in networks),
        checkpoints=tuple(network.checkpoint for network in networks),
        name=_name([network.weights for network in networks], sha256),
        sha256=sha256,
        tokenizers={**sources, TARGET: networks[0].tokenizers[TARGET]},
        longest_trained=min(limits, default=None),
        other_configs=tuple(model.config for model in transformers[1:]),
        searcher=OwnSearcher(
            partial(search_together, transformers, fields),
            EnsembleOrigin(tuple(network.weights for network in networks), fields),
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


def _require_one_context(networks: Sequence[TrainedNetwork]) -> None:
    first, *others = networks
    for other in others:
        if other.recipe.data.sentences_before != first.recipe.data.sentences_before:
            raise RunMismatchError(
                f"data.context_sentences is {first.recipe.data.sentences_before} in "
                f"{first.weights.run} and {other.recipe.data.sentences_before} in "
                f"{other.weights.run}, so the runs would read different texts. Name runs with "
                "equal values"
            )


def _require_one_start(networks: Sequence[TrainedNetwork], models: Sequence[Transformer]) -> None:
    """Check that all networks begin translations with the same token, as a joint search requires.

    Raises:
        RunMismatchError: the first tokens differ.
    """
    for network, model in zip(networks, models, strict=True):
        if model.config.decoder_start != models[0].config.decoder_start:
            raise RunMismatchError(
                f"model.decoder_start is {models[0].config.decoder_start} in "
                f"{networks[0].weights.run} and {model.config.decoder_start} in "
                f"{network.weights.run}, so their translations begin with different tokens. Name "
                "runs with equal values"
            )
