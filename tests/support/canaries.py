"""Credentials that must not appear in any file, and a search for them in all their forms."""

import base64
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

# The characters include some that a URL has to encode. The values are new in each run, so that no
# file contains them by chance.
USER = "canary-user"
PASSWORD = f"http/{secrets.token_hex(12)}+pw"
WANDB_KEY = secrets.token_hex(20)
PAGE_KEY = secrets.token_hex(20)  # part of the command of a notification target
NOTIFY_VARIABLE = "TRANSLOOM_NOTIFY"
NETRC_NAME = "passwords"


def environment(folder: Path) -> dict[str, str]:
    """Return variables with canaries; write the file that NETRC names into the folder."""
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
    """Return the forms of a canary in a file: plain, percent-encoded, or in base64."""
    found = {canary, quote(canary), quote(canary, safe=""), quote(canary, safe="").lower()}
    for shift in range(3):
        data = base64.b64encode(b"?" * shift + canary.encode()).decode()
        # the characters that do not depend on the neighbouring bytes
        inner = data[4 if shift else 0 : len(data) - 4]
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return [form.encode() for form in sorted(found)]


def leaks(canaries: Iterable[str], *places: Path) -> list[str]:
    """Return the files below these folders that contain a canary, each with the form found."""
    wanted = [(form, canary) for canary in canaries for form in forms(canary)]
    found = []
    for place in places:
        for path in sorted([place] if place.is_file() else place.rglob("*")):
            if path.is_file() and path.name != NETRC_NAME:
                content = path.read_bytes()
                found += [f"{path}: {form!r}" for form, _ in wanted if form in content]
    return found
