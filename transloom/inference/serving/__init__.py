"""Trained runs behind HTTP: `transloom serve`.

::

    request ──▶ auth.py ──▶ dispatcher.py: limits ──▶ batch_queue.py: all sentences, by length
                                                        │ batches of similar lengths
                                                        ▼
                         dispatcher.py ──▶ Ray Serve ──▶ replica.py: Translator
                                                          └ checkpoint_reloader.py
    serve.py starts all of it, and stops it on SIGINT or SIGTERM.

The HTTP server is ours, and Ray Serve's own proxy stays off. The server checks the cost of a
request before it processes the request, and batches the sentences of all requests together. If a
replica dies, its batch goes to another one without the client's knowledge.
"""
