"""Credentials that no file may hold afterwards, and a search for them in all their forms."""

import base64
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

# With characters that a URL has to encode. New in each run, so that nothing holds them by chance.
USER = "canary-user"
PASSWORD = f"http/{secrets.token_hex(12)}+pw"
WANDB_KEY = secrets.token_hex(20)
PAGE_KEY = secrets.token_hex(20)  # in the command of a target of notifications
NOTIFY_VARIABLE = "TRANSLOOM_NOTIFY"
NETRC_NAME = "passwords"


def environment(folder: Path) -> dict[str, str]:
    """Variables with canaries; the file that NETRC names is written into the folder."""
    path = folder / NETRC_NAME
    path.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    path.chmod(0o600)
    return {
        "WANDB_API_KEY": WANDB_KEY,
        "NETRC": str(path),
        "no_proxy": "127.0.0.1",
        NOTIFY_VARIABLE: json.dumps(["/bin/false", PAGE_KEY]),
    }


def forms(canary: str) -> list[bytes]:
    """Forms in which a file may contain it: as it is, percent-encoded, or somewhere in base64."""
    found = {canary, quote(canary), quote(canary, safe=""), quote(canary, safe="").lower()}
    for shift in range(3):
        data = base64.b64encode(b"?" * shift + canary.encode()).decode()
        inner = data[4 if shift else 0 : len(data) - 4]  # what its neighbours do not change
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return [form.encode() for form in sorted(found)]


def leaks(canaries: Iterable[str], *places: Path) -> list[str]:
    """The files below these folders that hold a canary, each with the form that was found."""
    wanted = [(form, canary) for canary in canaries for form in forms(canary)]
    found = []
    for place in places:
        for path in sorted([place] if place.is_file() else place.rglob("*")):
            if path.is_file() and path.name != NETRC_NAME:
                content = path.read_bytes()
                found += [f"{path}: {form!r}" for form, _ in wanted if form in content]
    return found
