"""moto's server as a program, one write at a time: else two conditional writes may both win."""

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
    # The body is read before, so that no slow client holds up the others.
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with _lock:
        return [b"".join(_answer(self, environ, start_response))]


if __name__ == "__main__":
    DomainDispatcherApplication.__call__ = _answer_alone
    main(sys.argv[1:])
