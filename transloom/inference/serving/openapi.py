"""Description of the HTTP API in OpenAPI 3.1, generated from `messages.py`, and its HTML page.

The page runs no script and loads nothing from other servers.
"""

import json
from functools import partial
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader
from pydantic.json_schema import models_json_schema

from foundation.untrusted_text import visible
from transloom.inference.serving import messages
from transloom.inference.serving.settings import Limits

_COMPONENT = "#/components/schemas/{model}"
_PROBLEMS = {
    "400": "The request, or its tag, a prefix or n_best, is not valid.",
    "401": "A valid token is required.",
    "403": "The request comes from a page of another site.",
    "413": "The body, the number of sentences or a sentence is too large.",
    "415": "The body is not application/json.",
    "421": "Without a token, the Host header must have the machine's name or an IP address.",
    "429": "Too many sentences are waiting: retry after Retry-After.",
    "500": "Internal error; see the server's log.",
    "503": "The server is shutting down, or replicas were lost: retry after Retry-After.",
    "504": "The translation timed out: retry after Retry-After.",
}
_MODELS = (messages.TranslateRequest, messages.TranslateAnswer, messages.Problem, messages.Standing)
_EXAMPLE = {"sentences": ["je suis étudiant", "elle est là"], "n_best": 1}
_TEXT = {"type": "string"}


def description(runs: list[str], limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI description of a server.

    Args:
        runs: names of the served runs.
    """
    _, schemas = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template=_COMPONENT
    )
    request = schemas["$defs"]["TranslateRequest"]["properties"]
    request["sentences"]["maxItems"] = limits.sentences
    request["n_best"]["maximum"] = limits.n_best
    run = {
        "name": "run",
        "in": "path",
        "required": True,
        "description": "The name of a run's folder.",
        "schema": _TEXT | {"enum": runs},
    }
    status = _response("Status and limits of each run.", _ref("Standing"))
    not_ready = _response("Not ready; the response has the reason.", _ref("Standing"))
    alive = _response("Liveness check.", _TEXT, "text/plain")
    metrics = _response("Metrics for Prometheus.", _TEXT, "application/openmetrics-text")
    problems = {code: _response(text, _ref("Problem")) for code, text in _PROBLEMS.items()}
    translations = _response("The translations of each sentence.", _ref("TranslateAnswer"))
    translated = {"200": translations} | problems
    body = {"schema": _ref("TranslateRequest"), "example": _EXAMPLE}
    sent = {"requestBody": {"required": True, "content": {"application/json": body}}}
    with_first, with_run = f"Translate with {runs[0]}.", "Translate with a run."
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "transloom serve",
            "version": version("transloom"),
            "description": "Translations by trained runs. The first run answers at /translate.",
        },
        "paths": {
            "/translate": _operation("post", "translate", with_first, translated, **sent),
            "/runs/{run}/translate": _operation(
                "post", "translateWithRun", with_run, translated, parameters=[run], **sent
            ),
            "/runs": _operation("get", "runs", "Status and limits of each run.", {"200": status}),
            "/healthz": _operation("get", "lives", "Liveness check.", {"200": alive}),
            "/readyz": _operation(
                "get", "ready", "Readiness check.", {"200": status, "503": not_ready}
            ),
            "/metrics": _operation("get", "metrics", "Metrics for Prometheus.", {"200": metrics}),
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(
    method: str, name: str, summary: str, responses: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    operation = {"operationId": name, "summary": summary, "responses": responses}
    return {method: operation | fields}


def _response(text: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _ref(model: str) -> dict[str, str]:
    return {"$ref": _COMPONENT.format(model=model)}


def description_page(api: dict[str, Any]) -> str:
    """Render an OpenAPI description as an HTML page, with all texts escaped."""
    loader = PackageLoader("transloom.inference.serving", "")
    environment = Environment(loader=loader, autoescape=True, finalize=_escape_hidden)
    sent = partial(json.dumps, ensure_ascii=False)
    return environment.get_template("api_reference.html").render(api=api, json=sent)


def _escape_hidden(value: object) -> object:
    """Escape control characters of a text that the template inserts; jinja2 escapes the HTML."""
    return visible(value) if type(value) is str else value
