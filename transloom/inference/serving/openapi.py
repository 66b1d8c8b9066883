"""Description of the HTTP API in OpenAPI 3.1, generated from `messages.py`, and its HTML page.

The page runs no script and loads nothing from other servers.
"""

import json
from html import escape
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from foundation.untrusted_text import visible
from transloom.inference.serving.messages import (
    Problem,
    Standing,
    TranslateAnswer,
    TranslateRequest,
)
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
_EXAMPLE = {"sentences": ["je suis étudiant", "elle est là"], "n_best": 1}


def description(runs: list[str], limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI description of a server.

    Args:
        runs: names of the served runs.
    """
    _, schemas = models_json_schema(
        [
            (TranslateRequest, "validation"),
            (TranslateAnswer, "serialization"),
            (Problem, "serialization"),
            (Standing, "serialization"),
        ],
        ref_template=_COMPONENT,
    )
    components = schemas["$defs"]
    request = components["TranslateRequest"]["properties"]
    request["sentences"]["maxItems"] = limits.sentences
    request["n_best"]["maximum"] = limits.n_best
    run = {
        "name": "run",
        "in": "path",
        "required": True,
        "description": "The name of a run's folder.",
        "schema": {"type": "string", "enum": runs},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "transloom serve",
            "version": version("transloom"),
            "description": "Translations by trained runs. The first run answers at /translate.",
        },
        "paths": {
            "/translate": {"post": _translating("translate", f"Translate with {runs[0]}.")},
            "/runs/{run}/translate": {
                "parameters": [run],
                "post": _translating("translateWithRun", "Translate with a run."),
            },
            "/runs": {"get": _asked("runs", "Status and limits of each run.", "Standing")},
            "/healthz": {"get": _text("lives", "Liveness check.", "text/plain")},
            "/readyz": {"get": _asked("ready", "Readiness check.", "Standing", "503")},
            "/metrics": {
                "get": _text("metrics", "Metrics for Prometheus.", "application/openmetrics-text")
            },
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _translating(name: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _of("TranslateRequest"), "example": _EXAMPLE}
            },
        },
        "responses": {
            "200": _json("The translations of each sentence.", "TranslateAnswer"),
            **{status: _json(text, "Problem") for status, text in _PROBLEMS.items()},
        },
    }


def _asked(name: str, summary: str, model: str, *others: str) -> dict[str, Any]:
    responses = {"200": _json(summary, model)}
    responses |= {
        status: _json("Not ready; the response has the reason.", model) for status in others
    }
    return {"operationId": name, "summary": summary, "responses": responses}


def _text(name: str, summary: str, kind: str) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string"}}}
    responses = {"200": {"description": summary, "content": content}}
    return {"operationId": name, "summary": summary, "responses": responses}


def _json(text: str, model: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _of(model)}}}


def _of(model: str) -> dict[str, str]:
    return {"$ref": _COMPONENT.format(model=model)}


def description_page(api: dict[str, Any]) -> str:
    """Render an OpenAPI description as an HTML page."""
    parts = [
        _operation(method, path, operations[method])
        for path, operations in api["paths"].items()
        for method in ("get", "post")
        if method in operations
    ]
    models = "".join(_model(name, schema) for name, schema in api["components"]["schemas"].items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>transloom serve: API reference</title>
<link rel="icon" href="static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="static/style.css">
</head>
<body>
<header><a class="brand" href="./">transloom</a><span>API reference</span>
<nav><a href="openapi.json">openapi.json</a></nav></header>
<main class="described">
<h1>API reference</h1>
<p>{_escaped(api["info"]["description"])} After a response with status 429, 503 or 504, wait for
the seconds in <code>Retry-After</code> and send the same request again. Repeating a request is
safe, since translation changes nothing.</p>
{"".join(parts)}
<h2>Messages</h2>
{models}
</main>
</body>
</html>
"""


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{status}</td><td>{_escaped(response['description'])}</td>"
        f"<td>{_content(response)}</td></tr>"
        for status, response in operation["responses"].items()
    )
    example = ""
    if body := operation.get("requestBody"):
        content = body["content"]["application/json"]
        sent = _escaped(json.dumps(content["example"], ensure_ascii=False))
        example = f"<p>Body: {_shown(content['schema'])}, such as</p><pre>{sent}</pre>"
    return (
        f"<section><h2><code>{method.upper()} {_escaped(path)}</code></h2>"
        f"<p>{_escaped(operation['summary'])}</p>{example}"
        '<div class="wide" tabindex="0" role="region" '
        f'aria-label="Responses of {_escaped(method.upper())} {_escaped(path)}"><table><thead><tr>'
        '<th scope="col">status</th><th scope="col">meaning</th><th scope="col">body</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div></section>"
    )


def _content(response: dict[str, Any]) -> str:
    return ", ".join(
        _shown(of_kind["schema"]) if "$ref" in of_kind["schema"] else _escaped(kind)
        for kind, of_kind in response["content"].items()
    )


def _model(name: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{_escaped(field)}</code></td><td>{_shown(value)}"
        f"{'' if field in needed else ', optional'}</td>"
        f"<td>{_escaped(value.get('description', ''))}</td></tr>"
        for field, value in schema.get("properties", {}).items()
    )
    return (
        f'<section id="{_escaped(name)}"><h3>{_escaped(name)}</h3>'
        f"<p>{_escaped(schema.get('description', ''))}</p>"
        f'<div class="wide" tabindex="0" role="region" aria-label="Fields of {_escaped(name)}">'
        '<table><thead><tr><th scope="col">field</th><th scope="col">type</th>'
        f'<th scope="col">meaning</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _shown(schema: dict[str, Any]) -> str:
    """Render the type of a JSON schema as HTML, in words."""
    if "$ref" in schema:
        name = _escaped(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_shown, schema["anyOf"]))
    if "enum" in schema:
        return _escaped(", ".join(map(json.dumps, schema["enum"])))
    if "prefixItems" in schema:
        return "[" + ", ".join(map(_shown, schema["prefixItems"])) + "]"
    if schema.get("type") == "array":
        return f"list of {_shown(schema['items'])}"
    limits = [f"{word} {schema[key]:,}" for key, word in _BOUNDS.items() if key in schema]
    return _escaped(" ".join([schema.get("type", "any"), *limits]))


def _escaped(text: str) -> str:
    """Escape text, which may be untrusted, for HTML."""
    return escape(visible(text))


_BOUNDS = {"minimum": "from", "maximum": "to"}
