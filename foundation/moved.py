"""Former import names of modules that users' extensions and scripts import.

    import data_pipeline.section ─▶ FutureWarning ─▶ the module foundation.section itself

An extension's bytes are part of a run's identity, so a running project cannot follow a move at
once: former names work for one version, and warn. Each package of ours calls `install`, so it
imports nothing here but the standard library.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Modules and packages, former name -> present name. A package stands for all that is in it.
MOVED = {
    "cluster.cli": "transloom.cli",
    "cluster.strict_yaml": "foundation.strict_yaml",
    "data_pipeline.corpus_config": "data_pipeline.config.corpus",
    "data_pipeline.embedding_config": "data_pipeline.config.embedding",
    "data_pipeline.extensions": "foundation.extensions",
    "data_pipeline.label_config": "data_pipeline.config.label",
    "data_pipeline.location": "foundation.location",
    "data_pipeline.masking_config": "data_pipeline.config.masking",
    "data_pipeline.pair_config": "data_pipeline.config.pair",
    "data_pipeline.process_pool": "foundation.process_pool",
    "data_pipeline.registry": "foundation.registry",
    "data_pipeline.section": "foundation.section",
    "data_pipeline.strangers_text": "foundation.untrusted_text",
    "data_pipeline.strict_json": "foundation.strict_json",
    "data_pipeline.text_config": "data_pipeline.config.text",
    "data_pipeline.wording": "foundation.wording",
    "data_pipeline.written": "foundation.file_model",
    "model.attention": "model.blocks.attention",
    "model.cache": "model.blocks.cache",
    "model.decoder_only": "model.networks.decoder_only",
    "model.decoder_only_config": "model.config.decoder_only",
    "model.dropout": "model.blocks.dropout",
    "model.embeddings": "model.blocks.embeddings",
    "model.encoder_only": "model.networks.encoder_only",
    "model.encoder_only_config": "model.config.encoder_only",
    "model.feed_forward": "model.blocks.feed_forward",
    "model.grouped_attention": "model.blocks.attention",
    "model.label_head": "model.heads.label_head",
    "model.layers": "model.blocks.layers",
    "model.learned_positions": "model.blocks.learned_positions",
    "model.linear": "model.blocks.linear",
    "model.loss": "model.losses.loss",
    "model.masked_head": "model.heads.masked_head",
    "model.norm": "model.blocks.norm",
    "model.packing": "model.blocks.packing",
    "model.positions": "model.blocks.positions",
    "model.r_drop": "model.losses.r_drop",
    "model.rotary": "model.blocks.rotary",
    "model.sentence_encoder": "model.heads.sentence_encoder",
    "model.sentence_encoder_config": "model.config.sentence_encoder",
    "model.swiglu": "model.blocks.swiglu",
    "model.text_cache": "model.blocks.cache",
    "model.transformer": "model.networks.transformer",
    "model.varlen": "model.blocks.varlen",
    "trainer.batch": "trainer.tasks.batch",
    "trainer.explain": "transloom.observe.explain",
    "trainer.inference": "transloom.inference",
    "trainer.losses": "trainer.registries.losses",
    "trainer.optimizers": "trainer.registries.optimizers",
    "trainer.placement": "trainer.rank.placement",
    "trainer.randomness": "trainer.tasks.randomness",
    "trainer.schedules": "trainer.registries.schedules",
    "trainer.tracking": "trainer.record",
    "trainer.validation": "trainer.training.validation",
}
PACKAGES = frozenset(name.partition(".")[0] for name in MOVED)


def install() -> None:
    """Let former names be imported in this process."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        # First, since the finder of paths would import a moved package's modules a second time.
        sys.meta_path.insert(0, _FormerNames())


def names_of(package: str, module: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__` for names that it had as a module.

    Args:
        package: the package, formerly a module.
        module: the module that has its names now.
    """

    def get(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            found = getattr(importlib.import_module(module), name)
        except AttributeError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        _warn(f"{package}.{name}", f"{module}.{name}", stacklevel=3)
        return found

    return get


def present_name(name: str) -> str | None:
    """Return the present name of a module that was moved, or None."""
    if name.partition(".")[0] not in PACKAGES:
        return None
    head, tail = name, ""
    while head:
        if head in MOVED:
            return MOVED[head] + tail
        head, _, last = head.rpartition(".")
        tail = f".{last}{tail}"
    return None


class _FormerNames(MetaPathFinder):
    """Find a module by its former name, before any other finder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if (present := present_name(fullname)) is None:
            return None
        _warn(fullname, present, stacklevel=3)
        return ModuleSpec(fullname, _SameModule(present))


class _SameModule(Loader):
    """Give out the module of the present name: one module under two names, with one state."""

    def __init__(self, present: str) -> None:
        self._present = present
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._present)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which the import of the former name has replaced


def _warn(former: str, present: str, *, stacklevel: int) -> None:
    warnings.warn(
        f"{former} is {present} now; the former name goes away in the next version",
        FutureWarning,
        stacklevel=stacklevel,
    )
