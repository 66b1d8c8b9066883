"""Construction of a rank's callbacks from the recipe, for training and for a replay."""

from run_store.checkpoints.format import SPIKE_GUARD
from trainer.job.rank_job import RankContext
from trainer.recipe import TrainingRecipe
from trainer.registries.callbacks import GuardKind, ObserverKind, StepGuard, StepObserver
from trainer.state.progress import Progress
from trainer.training.callbacks import ExtensionGuard, ExtensionObserver, blamed
from trainer.training.spike_guard import SpikeGuard


def build_guards(recipe: TrainingRecipe, progress: Progress) -> dict[str, StepGuard]:
    """Return a run's guards in their saved states, by the recipe keys that create them.

    Raises:
        CallbackError: a guard of an extension fails.
    """
    guards: dict[str, StepGuard] = {}
    if settings := recipe.trainer.spike_guard:
        guards[SPIKE_GUARD] = SpikeGuard(settings)
    for callback in recipe.callbacks:
        if isinstance(kind := callback.kind, GuardKind):
            with blamed("guard", callback.type, kind, progress.step):
                guard = kind.build()
            guards[f"callbacks.{callback.type}"] = ExtensionGuard(callback.type, guard)
    for key, state in progress.guard_states.items():
        if key in guards:
            guards[key].restore(state)
    return guards


def build_observers(context: RankContext) -> list[StepObserver]:
    """Return the observers of extensions.

    Raises:
        CallbackError: an observer cannot be built.
    """
    observers: list[StepObserver] = []
    for callback in context.recipe.callbacks:
        if isinstance(kind := callback.kind, ObserverKind):
            with blamed("observer", callback.type, kind, 0):
                observer = kind.build(context.placement.rank, context.job.run)
            observers.append(ExtensionObserver(callback.type, observer))
    return observers
