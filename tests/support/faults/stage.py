"""Fixtures that the trials of a test file share: a cluster, a recipe, and undisturbed runs."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.cluster.ray_head import RayHead
from support.faults.case import Result, undergo
from support.faults.cluster import FaultCluster
from support.faults.matrix import Case
from support.faults.moments import Orders
from support.faults.recipe import prepared_recipe
from support.faults.trial import Curve, Trial


class Stage:
    """Folder and cluster in which faults strike runs."""

    def __init__(self, cluster: FaultCluster, recipe: Path, folder: Path) -> None:
        self.cluster = cluster
        self._recipe = recipe
        self._folder = folder
        self._trials = 0
        self._undisturbed: dict[tuple[object, ...], Curve] = {}

    def trial(self, *options: str, folder: Path | None = None) -> Trial:
        """Return a new run, or a folder's run with other options, without starting it."""
        return Trial(self.cluster, self._recipe, folder or self._new_folder(), *options)

    def undisturbed(self, *options: str, poisons: tuple[int, int] | None = None) -> Curve:
        """Return the result of an undisturbed run with these options, which is trained only once.

        poisons: a step and a rank whose gradients are NaN.
        """
        if (options, poisons) not in self._undisturbed:
            trial = self.trial(*options)
            if poisons:
                self.cluster.orders.poison(*poisons)
            try:
                trial.start()
                assert trial.end() == 0, trial.story()
                self._undisturbed[options, poisons] = trial.curve()
            finally:
                self.cluster.orders.clear()
                trial.kill()
        return self._undisturbed[options, poisons]

    def undergo(self, case: Case, *options: str, bucket: str | None = None) -> list[Result]:
        """Train a run with a fault, and fail unless its result equals that of the undisturbed run.

        options: settings that do not affect the curve.
        bucket: URL of a bucket for the run; None for a folder.
        """
        fault, moments = case.fault, case.moments
        oracle = self.undisturbed(poisons=fault.poisons)
        folder = self._new_folder()
        location = f"{bucket}/{folder.name}" if bucket else folder
        return undergo(self.cluster, self._recipe, location, fault, moments, oracle, options)

    def _new_folder(self) -> Path:
        self._trials += 1
        return self._folder / f"run-{self._trials}"


@contextmanager
def opened_stage(folder: Path, there: tuple[RayHead, Orders] | None = None) -> Iterator[Stage]:
    """
    Args:
        folder: the folder of the recipe, the dataset and the runs.
        there: see `FaultCluster`.
    """
    recipe = prepared_recipe(folder)
    with tempfile.TemporaryDirectory(prefix="ray-") as short:
        cluster = FaultCluster(Path(short), there)
        try:
            yield Stage(cluster, recipe, folder)
        finally:
            cluster.close()
