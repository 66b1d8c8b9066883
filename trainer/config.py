"""Trainer's sections of a recipe: steps, optimizer, engine, checkpoints, tracking."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from foundation.location import Location
from foundation.section import (
    REQUIRED,
    Section,
    continuable,
    execution,
    identity,
    require_defaults,
)
from foundation.wording import join_items
from model.config.transformer import AttentionBackend
from run_store.config import LONGEST_PROBE, MAX_PROBES, MAX_WINDOW
from trainer.notify_config import NotifyConfig
from trainer.registries.callbacks import CALLBACKS, GuardKind, ObserverKind
from trainer.registries.losses import LOSSES
from trainer.registries.optimizers import OptimizerConfig
from trainer.registries.schedules import SCHEDULES
from trainer.registries.validators import known_in, options_for

# The median absolute deviation of normally distributed values, times this factor, is their standard
# deviation.
DEVIATION_PER_MAD = 1.4826
MAX_CALLBACKS = 16

# W&B refuses longer tags (0.31.0).
Tag = Annotated[str, Field(min_length=1, max_length=64)]

ProbeSentence = Annotated[str, Field(min_length=1, max_length=LONGEST_PROBE)]


class ScheduleConfig(Section):
    """Learning rate as a function of the step; `trainer.training.schedule` has the formulas."""

    # Validate `options` even if the recipe gives none.
    model_config = ConfigDict(validate_default=True)

    type: Annotated[str, known_in(SCHEDULES)] = identity(
        "paper",
        "Formula: `paper` (§5.3 of Attention Is All You Need), "
        "`inverse_square_root`, `cosine`, `linear`, `constant`, or one that an extension "
        "registers.",
    )
    warmup_steps: int = identity(4000, "Number of steps of the linear warm-up.", ge=0)
    scale: float = identity(1.0, "Factor on the learning rate of `paper`.", gt=0)
    peak_learning_rate: float | None = identity(
        None, "Learning rate after warm-up; required by all built-in types except `paper`.", gt=0
    )
    initial_learning_rate: float = identity(
        1e-7, "Learning rate at the start of warm-up; `paper` does not use it.", ge=0
    )
    decay_until_step: int | None = identity(
        None,
        "Step at which the decay ends; `cosine` and `linear` require it. Later steps use "
        "final_learning_rate.",
        gt=0,
    )
    final_learning_rate: float = identity(
        0.0, "Learning rate at the end of the decay of `cosine` and `linear`.", ge=0
    )
    options: Annotated[dict[str, Any], options_for(SCHEDULES, "type")] = identity(
        {}, "Settings of an extension's schedule, which uses no other field of this section."
    )

    @property
    def decays_to_an_end(self) -> bool:
        return self.type in ("cosine", "linear")

    @model_validator(mode="after")
    def _each_type_has_what_it_reads(self) -> "ScheduleConfig":
        what = f"schedule type {self.type!r}"
        if SCHEDULES[self.type]:  # an extension registered this type
            require_defaults(self, what, set(type(self).model_fields) - {"type", "options"})
            return self
        if (self.type == "paper") != (self.peak_learning_rate is None):
            remedy = (
                "does not use it: remove peak_learning_rate, or set `scale` instead"
                if self.type == "paper"
                else "requires it: set peak_learning_rate, for example to 0.0005"
            )
            raise ValueError(
                f"peak_learning_rate is {self.peak_learning_rate}, but schedule type "
                f"{self.type!r} {remedy}"
            )
        if self.type == "paper" and self.warmup_steps == 0:
            raise ValueError(
                "warmup_steps is 0, but schedule type 'paper' needs at least 1: raise warmup_steps"
            )
        unread = ["initial_learning_rate"] if self.type == "paper" else ["scale"]
        if not self.decays_to_an_end:
            unread += ["decay_until_step", "final_learning_rate"]
        require_defaults(self, what, unread)
        return self

    @model_validator(mode="after")
    def _decay_goes_down_after_warm_up(self) -> "ScheduleConfig":
        if not self.decays_to_an_end:
            return self
        if self.decay_until_step is None or self.decay_until_step <= self.warmup_steps:
            raise ValueError(
                f"decay_until_step is {self.decay_until_step}, but schedule type {self.type!r} "
                f"needs a step after the {self.warmup_steps} warmup_steps: set decay_until_step "
                "to a later step, usually to trainer.max_steps"
            )
        if self.peak_learning_rate and self.final_learning_rate > self.peak_learning_rate:
            raise ValueError(
                f"final_learning_rate is {self.final_learning_rate}, which is above "
                f"peak_learning_rate {self.peak_learning_rate}: set a lower final_learning_rate"
            )
        return self


class EarlyStoppingConfig(Section):
    """Condition to stop before `max_steps`."""

    metric: str = continuable(
        "loss", "Score of the validation set to monitor, such as loss, or bleu for translations."
    )
    patience: int = continuable(
        10, "Number of consecutive validations without a new best score that end the run.", gt=0
    )


class SpikeGuardConfig(Section):
    """Thresholds above which a step is a spike; `trainer.training.spike_guard` applies them."""

    window: int = identity(
        100,
        "Number of applied steps whose losses and gradient norms the thresholds are computed from.",
        ge=2,
        le=MAX_WINDOW,
    )
    minimum_steps: int = identity(
        50, "Number of applied steps before the guard skips a step; at most window.", ge=2
    )
    loss_deviations: float = identity(
        10.0,
        "Number of robust standard deviations above the median at which a loss is a spike.",
        gt=0,
    )
    norm_deviations: float = identity(
        10.0,
        "Number of robust standard deviations above the median at which a gradient norm is a "
        "spike.",
        gt=0,
    )

    @model_validator(mode="after")
    def _window_fills_up(self) -> "SpikeGuardConfig":
        if self.minimum_steps > self.window:
            raise ValueError(
                f"minimum_steps is {self.minimum_steps}, but the window holds only {self.window} "
                "steps, so the guard would never act: lower minimum_steps, or raise window"
            )
        return self


class TrainerConfig(Section):
    """Length of the training, loss, optimizer and validation."""

    # Validate `loss_options` even if the recipe gives none.
    model_config = ConfigDict(validate_default=True)

    max_steps: int = continuable(
        REQUIRED, "Total optimizer steps; a higher value continues a finished run.", gt=0
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: Annotated[str, known_in(LOSSES)] = identity(
        "cross_entropy", "`cross_entropy`, or a loss that an extension registers."
    )
    loss_options: Annotated[dict[str, Any], options_for(LOSSES, "loss")] = identity(
        {}, "Settings of an extension's loss."
    )
    label_smoothing: float = identity(
        0.1,
        "Label smoothing, ε_ls in §5.4 of Attention Is All You Need; 0 disables it.",
        ge=0,
        lt=1,
    )
    r_drop: float = identity(
        0.0,
        "Weight α of R-Drop (Liang et al. 2021, who use 5 for translation), which penalizes the "
        "difference between two passes over a micro-batch with different dropout; 0 disables it.",
        ge=0,
    )
    gradient_clipping: float = identity(
        0.0, "Largest global gradient norm; 0 disables clipping.", ge=0
    )
    validate_every_steps: int = continuable(
        500, "Steps between validations; the last step is always validated.", gt=0
    )
    early_stopping: EarlyStoppingConfig | None = continuable(
        None, "Condition that ends the run when validation no longer improves; null for none."
    )
    ema_decay: float = identity(
        0.0,
        "Decay of an exponential moving average of the weights, which validation "
        "and translation then use; 0 disables it.",
        ge=0,
        lt=1,
    )
    init_from: Location | None = identity(
        None,
        "Source of the initial weights of a new run: RUN or RUN@STEP, where RUN is a folder or "
        "URL, or the folder of a Marian or BERT model in Hugging Face's layout. The run begins at "
        "step 0 with new moments. null starts from random weights.",
    )
    frozen: tuple[Annotated[str, Field(min_length=1)], ...] = identity(
        (),
        "Patterns of parameters that keep their initial weights, such as "
        "`source_embedding.*` or `encoder.layers.[0-2].*`.",
    )
    stop_after_skipped_steps: int = continuable(
        3,
        "Number of consecutive skipped steps that end the run. A step is skipped if its loss or "
        "gradient is not finite, or if spike_guard finds a spike.",
        gt=0,
    )
    spike_guard: SpikeGuardConfig | None = identity(
        None,
        "Thresholds above which a loss or gradient norm is a spike, whose step is skipped; null "
        "applies every finite step.",
    )
    validation_scores: tuple[str, ...] = continuable(
        (), "Names of additional scores for the texts of a validation, which extensions register."
    )
    validation_samples: int = continuable(
        3, "Number of validation sentences whose translations are saved and shown.", ge=0
    )

    @property
    def smooths_labels(self) -> bool:
        """True if the loss includes label smoothing, which the NLL never does."""
        return self.loss == "cross_entropy" and self.label_smoothing > 0

    @model_validator(mode="after")
    def _extensions_loss_reads_what_is_set(self) -> "TrainerConfig":
        if LOSSES[self.loss] is not None:
            require_defaults(self, f"loss {self.loss!r}", ["label_smoothing", "r_drop"])
        return self

    @model_validator(mode="after")
    def _no_step_has_a_rate_of_zero(self) -> "TrainerConfig":
        end = self.schedule.decay_until_step
        if end and self.max_steps > end and self.schedule.final_learning_rate == 0:
            raise ValueError(
                f"max_steps is {self.max_steps}, but after schedule.decay_until_step {end} the "
                f"learning rate is 0: set max_steps to {end} or less. A later decay_until_step, or "
                "a final_learning_rate above 0, is possible only in a new run"
            )
        return self


class CallbackConfig(Section):
    """Guard or observer of an extension; docs/how-to/extending.md has an example of each."""

    # Validate `options` even if the recipe gives none.
    model_config = ConfigDict(validate_default=True)

    type: Annotated[str, known_in(CALLBACKS)] = identity(
        REQUIRED, "Name under which an extension registers the callback."
    )
    options: Annotated[dict[str, Any], options_for(CALLBACKS, "type")] = identity(
        {}, "Settings of the callback."
    )

    @property
    def kind(self) -> GuardKind | ObserverKind:
        """The settings of the callback, which create it."""
        return CALLBACKS[self.type].model_validate(self.options)


class EngineConfig(Section):
    """DeepSpeed's distribution of the state over ranks, and the precision of its computation."""

    zero_stage: Literal[0, 1, 2, 3] = execution(
        1,
        "ZeRO stage: 0 replicates all state on every rank; 1 shards moments, 2 also gradients, 3 "
        "also parameters.",
    )
    precision: Literal["fp32", "bf16"] = identity(
        "fp32",
        "Precision of forward and backward; bf16 keeps fp32 master weights and accumulates "
        "gradients in fp32.",
    )
    numerics: Literal["fast", "exact"] = identity(
        "fast",
        "Summation of losses and gradients: with exact, losses and weights are bit-identical for "
        "any number of ranks and any ZeRO stage; see docs/explanation/exactness.md.",
    )
    compile: Literal["none", "layers"] = identity(
        "none",
        "Network parts that torch's compiler fuses: with layers, each rank compiles the layers for "
        "training and validation before step 1; see docs/how-to/compiled-layers.md.",
    )
    attention: AttentionBackend | None = execution(
        None,
        "Backend that computes attention; null selects the backend that measured fastest on the "
        "device.",
    )
    activation_checkpointing: bool = execution(
        False,
        "Recompute each layer's activations in the backward pass instead of storing them. This "
        "needs less memory and one more forward pass, and gives the same results.",
    )
    verify_every_steps: int = execution(
        0,
        "Steps between checks for silent data corruption, which compare the gradient bits of two "
        "ranks; 0 for none. Requires numerics exact; see docs/how-to/silent-corruption.md.",
        ge=0,
    )

    verify_reductions: bool = execution(
        False,
        "Check in each step that the summed gradients are the sums of all ranks' gradients. "
        "Requires numerics exact; see docs/how-to/silent-corruption.md.",
    )

    @model_validator(mode="after")
    def _bf16_needs_sharded_moments(self) -> "EngineConfig":
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "precision is bf16 and zero_stage is 0, but DeepSpeed keeps no fp32 master weights "
                "in stage 0: use zero_stage 1, 2 or 3, or precision fp32"
            )
        return self

    @model_validator(mode="after")
    def _compiled_layers_have_whole_parameters(self) -> "EngineConfig":
        varlen = self.attention == AttentionBackend.VARLEN
        if self.compile == "layers" and (self.zero_stage == 3 or varlen):
            raise ValueError(
                f"compile is layers, zero_stage is {self.zero_stage} and attention is "
                f"{self.attention}, but neither stage 3 nor packed attention can be compiled: use "
                "zero_stage 0, 1 or 2 and attention sdpa"
            )
        return self

    @model_validator(mode="after")
    def _equal_bits_need_exact_numerics(self) -> "EngineConfig":
        if self.verify_every_steps and self.numerics != "exact":
            raise ValueError(
                f"verify_every_steps is {self.verify_every_steps} and numerics is "
                f"{self.numerics!r}, but only exact numerics promise that all ranks compute the "
                "same bits: set verify_every_steps to 0, or start a new run with numerics exact"
            )
        if self.verify_reductions and self.numerics != "exact":
            raise ValueError(
                f"verify_reductions is true and numerics is {self.numerics!r}, but only exact sums "
                "have checksums: set verify_reductions to false, or start a new run with numerics "
                "exact"
            )
        return self


class TrackingConfig(Section):
    """Weights & Biases, probing and notifications; a run writes metrics.jsonl in any case."""

    wandb: Literal["offline", "online", "disabled"] = execution(
        "offline", "Mode of W&B; the environment's WANDB_MODE takes precedence."
    )
    project: str = execution("transloom", "W&B project of the run.")
    group: str | None = execution(
        None, "W&B group of the run, for example for runs with several seeds.", min_length=1
    )
    tags: tuple[Tag, ...] = execution((), "W&B tags of the run.")
    notes: str | None = execution(None, "Notes that W&B shows with the run, such as its purpose.")
    probe_sentences: tuple[ProbeSentence, ...] = execution(
        (),
        "Sentences, at most 4, whose translation and attention are saved at steps 0, 1, 2, 3, 4, "
        "6, 8, 12, 16, … as the run's time-lapse.",
    )
    notify: NotifyConfig = NotifyConfig()

    @field_validator("tags")
    @classmethod
    def _are_named_once(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tags)) < len(tags):
            raise ValueError(f"{join_items(tags)}: a tag is repeated; give each tag once")
        return tags

    @field_validator("probe_sentences")
    @classmethod
    def _are_few(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        if len(sentences) > MAX_PROBES:
            raise ValueError(
                f"the recipe has {len(sentences)} probe sentences, at most {MAX_PROBES} are "
                "allowed: remove some"
            )
        if len(set(sentences)) < len(sentences):
            raise ValueError("a sentence is repeated: give each sentence once")
        return sentences
