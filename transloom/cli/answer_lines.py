"""`transloom answer-lines`: a translator for another program, which `transloom/api.py` starts."""

from transloom.cli.options import (
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    PenaltyOption,
    PrecisionOption,
    RunArgument,
)
from transloom.inference.engine_names import Engine


def answer_lines(
    run: RunArgument,
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    precision: PrecisionOption = "fp32",
    engine: EngineOption = Engine.TORCH,
    compute_type: ComputeTypeOption = None,
) -> None:
    """Translate for another program: a line of JSON for each line of JSON on standard input."""
    from transloom.commands.answering_lines import answer_until_the_end
    from transloom.commands.inference import load_translator

    answer_until_the_end(
        load_translator(
            run,
            checkpoint,
            beam_size,
            length_penalty,
            precision=precision,
            engine=engine,
            compute_type=compute_type,
        )
    )
