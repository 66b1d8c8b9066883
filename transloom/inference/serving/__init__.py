"""HTTP server for translation with trained runs: `transloom serve`.

::

    request ──▶ auth.py ──▶ dispatcher.py: limits ──▶ batch_queue.py: sentences of all requests
                                                        │ batches of similar lengths
                                                        ▼
                         dispatcher.py ──▶ Ray Serve ──▶ replica.py: Translator
                                                          └ checkpoint_reloader.py
    serve.py starts these components, and stops them on SIGINT or SIGTERM.

The HTTP server is our own; Ray Serve's proxy is not started. Our server checks the size of a
request before it processes the request, and forms batches from the sentences of all requests. If a
replica dies, another one translates its batch, and the client does not notice.
"""
