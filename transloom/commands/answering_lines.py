"""A translator that answers another process: a line of JSON for each line of JSON.

    {"sentences": […], "n_best": 1, "tag": null, "prefixes": null} ──▶ {"translations": [[…], …]}
    {"explain": "…", "tag": null, "live": true}        ──▶ {"translation": "…", "page": "<!doc…"}
                                                        or {"error": "…"}

It ends when nothing more can be asked of it. `transloom/api.py` asks, in Python programs.
"""

import json
import sys
from typing import Any

from cluster.terminal import full_message, tell_in_json
from foundation.errors import DataError
from model.errors import ModelError
from trainer.errors import TrainerError
from transloom.commands.explaining import explanation
from transloom.commands.inference import decoding_of
from transloom.inference.translator import Translator


def answer_until_the_end(translator: Translator) -> None:
    """Answer until the standard input ends."""
    decoding = translator.decoding
    tell_in_json({"ready": str(translator.checkpoint.path)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "explain" in request:
                tell_in_json(_explained(translator, request))
                continue
            translator.decoding = decoding_of(translator, None, None, request["n_best"])
            tell_in_json({"translations": _translated(translator, request)})
        except (DataError, ModelError, TrainerError) as error:
            tell_in_json({"error": full_message(error)})
        finally:
            translator.decoding = decoding


def _explained(translator: Translator, request: dict[str, Any]) -> dict[str, Any]:
    page, summary = explanation(
        translator, request["explain"], request["tag"], live=request["live"]
    )
    return {"translation": summary["translation"], "page": page}


def _translated(translator: Translator, request: dict[str, Any]) -> list[list[dict[str, Any]]]:
    best = translator.translate_n_best(
        request["sentences"], request["tag"], request["prefixes"], request["n_best"]
    )
    return [[{"text": found.text, "score": found.score} for found in of_one] for of_one in best]
