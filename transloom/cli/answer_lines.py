"""Command `transloom answer-lines`: serve another process through lines of JSON.

    {"sentences": […], "n_best": 1, "tag": null, "prefixes": null} ──▶ {"translations": [[…], …]}
    {"explain": "…", "tag": null, "live": true}        ──▶ {"translation": "…", "page": "<!doc…"}
                                                        or {"error": "…"}

The command ends when its standard input ends. `transloom/api.py` starts this command for Python
programs.
"""

import json
import sys
from typing import TYPE_CHECKING, Any

from foundation.errors import DataError
from foundation.terminal import full_message, print_json_line
from model.errors import ModelError
from run_store.errors import RunError
from transloom.cli.options import (
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    PenaltyOption,
    PrecisionOption,
    RunArgument,
)
from transloom.inference.decoding_options import DecodingOptions
from transloom.inference.engine_names import Engine

if TYPE_CHECKING:
    from transloom.inference.translator import Translator


def answer_lines(
    run: RunArgument,
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    precision: PrecisionOption = "fp32",
    engine: EngineOption = Engine.TORCH,
    compute_type: ComputeTypeOption = None,
) -> None:
    """Answer each line of JSON on standard input with a line of JSON, for another program."""
    from transloom.cli.load_translator import load_translator

    options = DecodingOptions(
        beam_size, length_penalty, precision=precision, engine=engine, compute_type=compute_type
    )
    answer_until_the_end(load_translator(run, checkpoint, options))


def answer_until_the_end(translator: "Translator") -> None:
    """Answer one request per line of standard input, until the input ends."""
    decoding = translator.decoding
    print_json_line({"ready": str(translator.checkpoint.path)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "explain" in request:
                print_json_line(_explained(translator, request))
                continue
            translator.decoding = DecodingOptions(n_best=request["n_best"]).applied_to(decoding)
            print_json_line({"translations": _translated(translator, request)})
        except (DataError, ModelError, RunError) as error:
            print_json_line({"error": full_message(error)})
        finally:
            translator.decoding = decoding


def _explained(translator: "Translator", request: dict[str, Any]) -> dict[str, Any]:
    from transloom.cli.explain import explanation

    page, summary = explanation(
        translator, request["explain"], request["tag"], live=request["live"]
    )
    return {"translation": summary["translation"], "page": page}


def _translated(translator: "Translator", request: dict[str, Any]) -> list[list[dict[str, Any]]]:
    best = translator.translate_n_best(
        request["sentences"], request["tag"], request["prefixes"], request["n_best"]
    )
    return [[{"text": found.text, "score": found.score} for found in of_one] for of_one in best]
