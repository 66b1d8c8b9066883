"""Replica: a process of Ray Serve that translates batches with the weights of one run.

The server also imports this module, but does not need torch. Modules that import torch are
therefore imported only when a replica starts.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from foundation.garbage_collection import without_garbage_collection
from foundation.openmp import limit_openmp_spin
from foundation.periodic_thread import PeriodicThread
from foundation.untrusted_text import logger_of
from transloom.inference.serving.batch import Batch, BatchAnswer, ReplicaStatus
from transloom.inference.serving.settings import ReplicaSettings

if TYPE_CHECKING:
    from transloom.inference.translator import Translator

logger = logger_of(__name__)


class Replica:
    """Ray Serve deployment that translates one batch at a time, in a thread.

    A second thread loads newer checkpoints.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        limit_openmp_spin()
        with without_garbage_collection():
            from cluster.ray.private_serve import disable_replica_port
            from transloom.inference.search_processes import prepare_process
            from transloom.inference.serving.checkpoint_reloader import CheckpointReloader
            from transloom.inference.serving.replica_translation import load

        disable_replica_port()
        prepare_process(settings.cpus)
        refresh: Callable[[], object] | None = None
        if settings.url:  # each replica has a copy, because it may be on any node
            from trainer.runs.remote.pull import RunView
            from trainer.runs.remote.views import UNLISTED

            view = RunView(settings.url, UNLISTED)
            view.refresh()
            settings, refresh = replace(settings, run=view.folder), view.refresh
        self._settings = settings
        self._checkpoint_reloader: CheckpointReloader[Translator] = CheckpointReloader(
            settings.run,
            settings.follow,
            settings.checkpoint,
            lambda checkpoint: load(settings, checkpoint),
            refresh,
        )
        self._name = f"{id(self):x}-{time.time_ns():x}"
        self._thread = ThreadPoolExecutor(1, "translate")
        self._busy_since: float | None = None
        PeriodicThread(
            "checkpoints",
            settings.look_seconds,
            lambda: self._checkpoint_reloader.reload_and_log(logger),
        ).start()

    async def translate(self, batch: Batch) -> BatchAnswer:
        """Translate all sentences of a batch with the same checkpoint, and report the status.

        An empty batch only requests the status.
        """
        from transloom.inference.serving.replica_translation import translate_batch

        # Read the attribute once, since a reload may replace it in the meantime.
        translator = self._checkpoint_reloader.current
        current_status = self._standing(translator)
        if not batch.texts:
            return BatchAnswer((), current_status)
        self._busy_since = time.monotonic()
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, translate_batch, translator, batch, self._settings
            )
        finally:
            self._busy_since = None
        return BatchAnswer(tuple(found), current_status)

    def _standing(self, translator: "Translator") -> ReplicaStatus:
        return ReplicaStatus(
            process=self._name,
            checkpoint=translator.checkpoint.path.name,
            step=translator.checkpoint.step,
            changes=self._checkpoint_reloader.changes,
            damaged=tuple(self._checkpoint_reloader.damaged),
        )

    def check_health(self) -> None:
        """Raise an error if the current batch has taken too long.

        Ray Serve calls this method periodically, and replaces the replica after an error.
        """
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._settings.hang_seconds:
            raise RuntimeError(
                f"the current batch has taken more than {self._settings.hang_seconds:g} s"
            )
