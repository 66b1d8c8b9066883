"""HTTP server for translation with trained runs: `transloom serve`.

::

    request ──▶ server.py: token, limits ──▶ dispatcher.py ──▶ batches.py: sentences of all requests
                                                │ batches of similar lengths
                                                ▼
                                             replica.py ──▶ replica_process.py: Translator
                                                              └ checkpoint_reloader.py
    serve.py starts these components, and stops them on SIGINT or SIGTERM.

The server and each replica are separate processes. The server checks the size of a request before
it processes the request, and forms batches from the sentences of all requests. If a replica dies or
hangs, another replica translates its batch, and the client does not notice.
"""
