"""Program that runs moto's server with one write at a time.

Otherwise two concurrent conditional writes might both succeed.
"""

import io
import sys
import threading
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

_lock = threading.Lock()
_answer = DomainDispatcherApplication.__call__


def _answer_alone(self: Any, environ: dict[str, Any], start_response: Any) -> Any:
    if environ["REQUEST_METHOD"] != "PUT":
        return _answer(self, environ, start_response)
    # Read the body before taking the lock, so that a slow client does not block other clients.
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with _lock:
        return [b"".join(_answer(self, environ, start_response))]


if __name__ == "__main__":
    DomainDispatcherApplication.__call__ = _answer_alone
    main(sys.argv[1:])
