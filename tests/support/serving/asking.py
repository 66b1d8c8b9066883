"""Responses of a server to a client that does not retry."""

import json
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def ask(address: str, sentences: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of the response."""
    body = json.dumps({"sentences": list(sentences)}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/translate", body, headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def standing(address: str) -> dict[str, Any]:
    """Return the state of the first run."""
    with urllib.request.urlopen(f"{address}/runs") as response:
        found: dict[str, Any] = json.load(response)["runs"][0]
        return found


def numbers(address: str) -> dict[str, float]:
    """Return the metrics of a run by name."""
    with urllib.request.urlopen(f"{address}/metrics") as response:
        families = text_string_to_metric_families(response.read().decode())
    return {one.name: one.value for family in families for one in family.samples}
