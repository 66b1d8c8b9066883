"""A replica: a process of Ray Serve that translates batches with one run's newest checkpoint.

The server imports this file too, and needs no torch: what does is imported where a replica starts.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from foundation.garbage import nothing_looked_through
from foundation.periodic_thread import PeriodicThread
from foundation.strangers_text import logger_of
from foundation.threads import fall_asleep_soon
from transloom.inference.serving.batch import Batch, BatchAnswer, ReplicaStanding
from transloom.inference.serving.settings import ReplicaSettings

if TYPE_CHECKING:
    from transloom.inference.translator import Translator

logger = logger_of(__name__)


class Replica:
    """Translates a batch at a time, in a thread, and takes up newer checkpoints in another."""

    def __init__(self, settings: ReplicaSettings) -> None:
        fall_asleep_soon()
        with nothing_looked_through():
            from cluster.ray.private_serve import close_the_replicas_port
            from transloom.inference.search_processes import prepare_process
            from transloom.inference.serving.taking_up import TakingUp
            from transloom.inference.serving.translating import load

        close_the_replicas_port()
        prepare_process(settings.cpus)
        self._settings = settings
        self._taking_up: TakingUp[Translator] = TakingUp(
            settings.run,
            settings.follow,
            settings.checkpoint,
            lambda checkpoint: load(settings, checkpoint),
        )
        self._name = f"{id(self):x}-{time.time_ns():x}"
        self._thread = ThreadPoolExecutor(1, "translate")
        self._busy_since: float | None = None
        PeriodicThread(
            "checkpoints", settings.look_seconds, lambda: self._taking_up.look_and_log(logger)
        ).start()

    async def translate(self, batch: Batch) -> BatchAnswer:
        """The translations of a batch, all with one checkpoint."""
        from transloom.inference.serving.translating import translated

        translator = self._taking_up.current  # once: another one may be taken up meanwhile
        standing = self._standing(translator)
        if not batch.texts:
            return BatchAnswer((), standing)
        self._busy_since = time.monotonic()
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, translated, translator, batch, self._settings
            )
        finally:
            self._busy_since = None
        return BatchAnswer(tuple(found), standing)

    def _standing(self, translator: "Translator") -> ReplicaStanding:
        return ReplicaStanding(
            process=self._name,
            checkpoint=translator.checkpoint.path.name,
            step=translator.checkpoint.step,
            changes=self._taking_up.changes,
            damaged=tuple(self._taking_up.damaged),
        )

    def check_health(self) -> None:
        """Asked by Ray Serve now and then; a replica that raises is replaced."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._settings.hang_seconds:
            raise RuntimeError(f"a batch takes more than {self._settings.hang_seconds:g} s")
