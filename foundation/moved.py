"""Redirects from former import names of modules, for users' extensions and scripts.

    import data_pipeline.section ─▶ FutureWarning ─▶ the module foundation.section itself

An extension's bytes are part of a run's identity, so a project with unfinished runs cannot update
its imports at once. Former names therefore work for one version, with a warning. Each of
transloom's packages calls `install`, so this module imports only the standard library.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Current name of each moved module or package, by its former name. The entry of a package includes
# all of its modules.
MOVED = {
    "cluster.cli": "transloom.cli",
    "cluster.cli.standings": "transloom.cli.status",
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
    "foundation.strangers_text": "foundation.untrusted_text",
    "foundation.written": "foundation.file_model",
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
    "trainer.build": "trainer.assembly",
    "trainer.explain": "transloom.observe.explain",
    "trainer.inference": "transloom.inference",
    "trainer.inference.ctranslate2.kept_export": "transloom.inference.ctranslate2.export_cache",
    "trainer.inference.given_text": "transloom.inference.text_input",
    "trainer.inference.kept_translations": "transloom.inference.stored_translations",
    "trainer.inference.serving.taking_up": "transloom.inference.serving.checkpoint_reloader",
    "trainer.inference.serving.translating": "transloom.inference.serving.replica_translation",
    "trainer.inference.serving.waiting": "transloom.inference.serving.batch_queue",
    "trainer.inference.spread": "transloom.inference.distributed",
    "trainer.inference.spread.spread": "transloom.inference.distributed.cluster_translation",
    "trainer.inference.spread.work": "transloom.inference.distributed.chunk_store",
    "trainer.inference.texts_at_once": "transloom.inference.batch_size",
    "trainer.losses": "trainer.registries.losses",
    "trainer.memory.host_memory": "trainer.process.host_memory",
    "trainer.optimizers": "trainer.registries.optimizers",
    "trainer.placement": "trainer.process.placement",
    "trainer.randomness": "trainer.tasks.randomness",
    "trainer.rank": "trainer.process",
    "trainer.rank.rank_job": "trainer.job.rank_job",
    "trainer.rank.supervision": "trainer.job.supervision",
    "trainer.replay.replay_options": "trainer.job.replay_options",
    "trainer.runs.remote.location": "trainer.runs.run_url",
    "trainer.schedules": "trainer.registries.schedules",
    "trainer.tracking": "trainer.record",
    "trainer.tracking.metrics": "trainer.record.metrics_file",
    "trainer.tracking.recording": "trainer.record.recorder_protocol",
    "trainer.tracking.records": "trainer.record.metrics_lines",
    "trainer.tracking.standing": "trainer.record.run_status",
    "trainer.validation": "trainer.training.validation",
}
PACKAGES = frozenset(name.partition(".")[0] for name in MOVED)


def install() -> None:
    """Enable imports by former names in this process."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        # Inserted first, because the path finder would import a moved package's modules a second
        # time.
        sys.meta_path.insert(0, _FormerNames())


def names_of(package: str, module: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package that was a module, to find the names of that module.

    Args:
        package: the package, formerly a module.
        module: the module that now has these names.
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


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` for the former names of its classes and functions.

    Args:
        module: the module's name.
        names: current names by former name.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{names[name]}", stacklevel=3)
        return getattr(sys.modules[module], names[name])

    return get


def present_name(name: str) -> str | None:
    """Return the current name of a module that was moved, or None if it was not."""
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
    """Finder of modules by their former names, asked before any other finder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if (present := present_name(fullname)) is None:
            return None
        _warn(fullname, present, stacklevel=3)
        return ModuleSpec(fullname, _SameModule(present))


class _SameModule(Loader):
    """Loader that returns the module of the current name, so that two names share one module."""

    def __init__(self, present: str) -> None:
        self._present = present
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._present)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import of the former name replaced it


def _warn(former: str, present: str, *, stacklevel: int) -> None:
    warnings.warn(
        f"{former} has moved to {present}; the next version removes the former name",
        FutureWarning,
        stacklevel=stacklevel,
    )
