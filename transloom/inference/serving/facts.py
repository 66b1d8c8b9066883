"""Facts about a run that the server needs to check requests, without loading the network."""

from dataclasses import dataclass

from data_pipeline.config.pair import SOURCE, PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from trainer.recipe import TrainingRecipe
from transloom.inference.chosen_checkpoint import find_checkpoint
from transloom.inference.serving.settings import ReplicaSettings


@dataclass(frozen=True)
class ServedRunFacts:
    """Facts that are the same for all checkpoints of a run.

    Attributes:
        longest: maximum tokens of a sentence, with tag and EOS, unless memory is short.
        tokenizer: the tokenizer of source sentences.
    """

    source_language: str
    target_language: str
    longest: int
    tokenizer: Tokenizer

    def count_tokens(self, sentences: list[str], tag: str | None) -> list[int]:
        """Return the number of tokens of each sentence as the model reads it, with tag and EOS.

        Raises:
            TokenizerError: the run has no such tag.
        """
        counts: list[int] = self.tokenizer.encode_field(sentences, tag).lengths.tolist()
        return counts


def facts_of(settings: ReplicaSettings) -> ServedRunFacts:
    """Check that a run can be served, and return its facts.

    Raises:
        RunMismatchError: the folder has no run, or its run was not trained for translation.
        CheckpointError: the run has no intact checkpoint, or lacks the one in the settings.
    """
    folder = RunFolder(settings.run)
    folder.card()
    header = find_checkpoint(folder, settings.checkpoint)[0].header
    recipe = TrainingRecipe.of_checkpoint(header.recipe, header.identity)
    if recipe.task != "translation" or not isinstance(recipe.data, PairDataConfig):
        raise RunMismatchError(
            f"{settings.run} was trained for {recipe.task}, but only runs of the task translation "
            "can be served: name another run"
        )
    store = open_store(folder.dataset)
    return ServedRunFacts(
        source_language=recipe.data.source_language,
        target_language=recipe.data.target_language,
        longest=settings.max_tokens or recipe.data.max_source_length,
        tokenizer=load_tokenizers(store, Manifest.load(store))[SOURCE],
    )
