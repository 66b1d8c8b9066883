"""The trainer's sections of a recipe: steps, optimiser, engine, checkpoints, tracking.

Every leaf field names its change class:
``identity`` makes another run, ``continuable`` may change in an existing run, ``execution``
changes neither the data nor the curve beyond rounding.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.config import AttentionBackend

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
Moment = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(BaseModel):
    """Adam with decoupled weight decay (Kingma & Ba 2015; Loshchilov & Hutter 2019)."""

    model_config = _STRICT

    betas: Annotated[
        tuple[Moment, Moment],
        Field(description="Decay of the first and second moment; the paper's §5.3 has 0.9, 0.98."),
        "identity",
    ] = (0.9, 0.98)
    epsilon: Annotated[
        float, Field(gt=0, description="Added to the root of the second moment."), "identity"
    ] = 1e-9
    weight_decay: Annotated[
        float,
        Field(ge=0, description="Decoupled decay of matrices; norms and biases are left out."),
        "identity",
    ] = 0.0


class ScheduleConfig(BaseModel):
    """The learning rate as a function of the step; `trainer.training.schedule` has the formulas."""

    model_config = _STRICT

    type: Annotated[
        Literal["paper", "inverse_square_root", "cosine", "linear", "constant"],
        Field(description="Which formula; `paper` is §5.3 of Attention Is All You Need."),
        "identity",
    ] = "paper"
    warmup_steps: Annotated[
        int, Field(ge=0, description="Steps of linear warm-up."), "identity"
    ] = 4000
    scale: Annotated[
        float, Field(gt=0, description="`paper`: a factor on the paper's rate."), "identity"
    ] = 1.0
    peak_learning_rate: Annotated[
        float | None,
        Field(gt=0, description="The rate after warm-up; required by all but `paper`."),
        "identity",
    ] = None
    initial_learning_rate: Annotated[
        float, Field(ge=0, description="The rate that warm-up starts from."), "identity"
    ] = 1e-7
    decay_until_step: Annotated[
        int | None,
        Field(
            gt=0,
            description="`cosine` and `linear`, which require it: the step at which the rate "
            "reaches final_learning_rate, to stay there.",
        ),
        "identity",
    ] = None
    final_learning_rate: Annotated[
        float,
        Field(ge=0, description="`cosine` and `linear`: the rate at the end of the decay."),
        "identity",
    ] = 0.0

    @property
    def decays_to_an_end(self) -> bool:
        return self.type in ("cosine", "linear")

    @model_validator(mode="after")
    def _each_type_has_what_it_reads(self) -> "ScheduleConfig":
        if (self.type == "paper") != (self.peak_learning_rate is None):
            remedy = (
                "remove it, or set `scale`" if self.type == "paper" else "set it, e.g. to 0.0005"
            )
            raise ValueError(
                f"schedule type {self.type!r} with peak_learning_rate "
                f"{self.peak_learning_rate}: {remedy}"
            )
        if self.type == "paper" and self.warmup_steps == 0:
            raise ValueError("schedule type 'paper' with warmup_steps 0: it needs at least 1")
        unread = ["initial_learning_rate"] if self.type == "paper" else ["scale"]
        if not self.decays_to_an_end:
            unread += ["decay_until_step", "final_learning_rate"]
        for name in unread:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"schedule type {self.type!r} does not read {name}, which is "
                    f"{getattr(self, name)}: remove it"
                )
        return self

    @model_validator(mode="after")
    def _decay_goes_down_after_warm_up(self) -> "ScheduleConfig":
        if not self.decays_to_an_end:
            return self
        if self.decay_until_step is None or self.decay_until_step <= self.warmup_steps:
            raise ValueError(
                f"schedule type {self.type!r} with decay_until_step {self.decay_until_step} and "
                f"warmup_steps {self.warmup_steps}: set decay_until_step to a later step, usually "
                "that of trainer.max_steps"
            )
        if self.peak_learning_rate and self.final_learning_rate > self.peak_learning_rate:
            raise ValueError(
                f"schedule type {self.type!r} with final_learning_rate "
                f"{self.final_learning_rate} above peak_learning_rate {self.peak_learning_rate}: "
                "set it to a lower rate"
            )
        return self


Metric = Literal["loss", "bleu"]


class EarlyStoppingConfig(BaseModel):
    """When to stop before ``max_steps``."""

    model_config = _STRICT

    metric: Annotated[
        Metric,
        Field(description="Of the validation set: loss (lower is better) or bleu (higher is)."),
        "continuable",
    ] = "loss"
    patience: Annotated[
        int,
        Field(gt=0, description="Validations in a row without a new best one that end the run."),
        "continuable",
    ] = 10


class TrainerConfig(BaseModel):
    """How long and with which loss to train."""

    model_config = _STRICT

    max_steps: Annotated[
        int,
        Field(gt=0, description="Optimizer steps in all; more steps continue a finished run."),
        "continuable",
    ]
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="ε_ls of the paper's §5.4."), "identity"
    ] = 0.1
    gradient_clipping: Annotated[
        float, Field(ge=0, description="Largest global gradient norm; 0 leaves it."), "identity"
    ] = 0.0
    validate_every_steps: Annotated[
        int,
        Field(gt=0, description="Steps between validations; the last step has one too."),
        "continuable",
    ] = 500
    early_stopping: Annotated[
        EarlyStoppingConfig | None,
        Field(description="Ends the run when validation gets better no more; null does not."),
        "continuable",
    ] = None
    ema_decay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Decay of an exponential moving average of the weights, which validation "
            "and translating then use; 0 keeps none.",
        ),
        "identity",
    ] = 0.0
    init_from: Annotated[
        str | None,
        Field(
            description="RUN or RUN@STEP whose weights a new run starts from, at step 0 and with "
            "new moments; null starts from random weights."
        ),
        "identity",
    ] = None
    stop_after_skipped_steps: Annotated[
        int,
        Field(
            gt=0,
            description="Steps in a row whose loss or gradient is not finite, hence not applied, "
            "after which the run ends.",
        ),
        "continuable",
    ] = 3
    validation_samples: Annotated[
        int,
        Field(ge=0, description="Validation sentences whose translations are kept and shown."),
        "continuable",
    ] = 3

    @model_validator(mode="after")
    def _no_step_has_a_rate_of_zero(self) -> "TrainerConfig":
        end = self.schedule.decay_until_step
        if end and self.max_steps > end and self.schedule.final_learning_rate == 0:
            raise ValueError(
                f"max_steps {self.max_steps} with schedule.decay_until_step {end}, after which the "
                f"learning rate is 0: set max_steps to {end} or less. A later decay_until_step, or "
                "a final_learning_rate above 0, makes another run"
            )
        return self


class EngineConfig(BaseModel):
    """How DeepSpeed spreads the state over ranks and in which precision it computes."""

    model_config = _STRICT

    zero_stage: Annotated[
        Literal[0, 1, 2, 3],
        Field(description="0 replicates all; 1 shards moments, 2 gradients too, 3 parameters too."),
        "execution",
    ] = 1
    precision: Annotated[
        Literal["fp32", "bf16"],
        Field(description="bf16 keeps fp32 master weights and accumulates gradients in fp32."),
        "identity",
    ] = "fp32"
    numerics: Annotated[
        Literal["fast", "exact"],
        Field(
            description="exact: losses and weights are the same bits on any number of ranks and "
            "in any ZeRO stage; see docs/exactness.md."
        ),
        "identity",
    ] = "fast"
    attention: Annotated[
        AttentionBackend | None,
        Field(
            description="Which kernels compute attention; null takes the one that was measured to "
            "be fastest on the device in the precision."
        ),
        "execution",
    ] = None
    activation_checkpointing: Annotated[
        bool,
        Field(
            description="Backward passes compute each layer's activations anew instead of keeping "
            "them: less memory, one more forward pass, the same numbers."
        ),
        "execution",
    ] = False

    @model_validator(mode="after")
    def _bf16_needs_sharded_moments(self) -> "EngineConfig":
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "precision bf16 with zero_stage 0: DeepSpeed keeps no fp32 master weights there; "
                "use zero_stage 1, 2 or 3, or precision fp32"
            )
        return self


class CheckpointsConfig(BaseModel):
    """When checkpoints are written and how many stay."""

    model_config = _STRICT

    every_steps: Annotated[
        int,
        Field(gt=0, description="Steps between checkpoints; the last step has one too."),
        "continuable",
    ] = 500
    keep_last: Annotated[
        int,
        Field(gt=0, description="How many of the newest complete checkpoints stay."),
        "continuable",
    ] = 3
    keep_best: Annotated[
        int,
        Field(ge=0, description="How many of those with the best validation stay as well."),
        "continuable",
    ] = 1
    best_by: Annotated[
        Metric,
        Field(description="What is best: the lowest validation loss, or the highest bleu."),
        "continuable",
    ] = "loss"
    keep_every_steps: Annotated[
        int | None,
        Field(gt=0, description="Those of every k-th step stay for ever; null keeps none."),
        "continuable",
    ] = None


class TrackingConfig(BaseModel):
    """Weights & Biases; metrics.jsonl in the run folder is written in any case."""

    model_config = _STRICT

    wandb: Annotated[
        Literal["offline", "online", "disabled"],
        Field(description="The environment's WANDB_MODE takes precedence."),
        "execution",
    ] = "offline"
    project: Annotated[str, Field(description="The W&B project."), "execution"] = "transloom"
