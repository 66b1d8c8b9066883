"""Replacement of the W&B server that stores what `wandb sync` and online runs send.

W&B's program reads the files of a run and sends their history, so the server stores the data as W&B
interprets them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.quiet_server import QuietHandler, QuietServer

ENTITY = {"id": "e", "name": "somebody"}


class WandbServer(QuietServer):
    """Server of W&B's API.

    Attributes:
        history: the rows of each run, by the run's id.
        summary: the last values of each run.
        offered: names of the files that a client wants to upload.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.offered: set[str] = set()

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment that makes W&B use this server."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ERROR_REPORTING": "false",
        }

    def sync(self, run: Path) -> str:
        """Upload the files below a run's folder by `wandb sync`; return its output."""
        others = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        folders = sorted((run / "wandb").glob("offline-run-*"))
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *folders],
            env={**others, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout + done.stderr

    def answer(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        if path == "/graphql":
            return {"data": self._query(request["query"], request.get("variables", {}))}
        if path.endswith("/file_stream"):
            self._receive(path.split("/")[-2], request.get("files", {}))
        return {}

    def _query(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "UpsertBucket" in query:
            return {"upsertBucket": {"bucket": self._run(variables["name"]), "inserted": True}}
        if "RunResumeStatus" in query:
            run = self._run(variables["name"]) if variables["name"] in self.history else None
            return {"model": {"id": "p", "name": "p", "entity": ENTITY, "bucket": run}}
        if "serverInfo" in query:
            return {"serverInfo": {"features": []}}
        if "createRunFiles" in query:
            self.offered.update(variables["files"])
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}
        return {}

    def _run(self, name: str) -> dict[str, Any]:
        rows = self.history.setdefault(name, [])
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "project": {"id": "p", "name": "p", "entity": ENTITY},
            "config": "{}",
            "wandbConfig": '{"t": 1}',  # the upload has been started
            "historyLineCount": len(rows),
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "summaryMetrics": json.dumps(self.summary.get(name, {})),
        }

    def _receive(self, run: str, files: dict[str, Any]) -> None:
        if part := files.get("wandb-history.jsonl"):
            self.history[run][part["offset"] :] = map(json.loads, part["content"])
        if part := files.get("wandb-summary.json"):
            self.summary[run] = json.loads(part["content"][-1])


class _Handler(QuietHandler):
    server: WandbServer

    def do_POST(self) -> None:
        answer = self.server.answer(self.path, json.loads(self.body()))
        self.send(200, json.dumps(answer).encode(), Content_Type="application/json")
