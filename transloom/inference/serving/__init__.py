"""Trained runs behind HTTP: `transloom serve`.

::

    request ──▶ auth.py ──▶ dispatcher.py: limits ──▶ waiting.py: all sentences, by length
                                                        │ batches of alike lengths
                                                        ▼
                             dispatcher.py ──▶ Ray Serve ──▶ replica.py: Translator
                                                              └ taking_up.py: newer checkpoints
    serve.py starts it all, and ends it when it is told to.

The HTTP server is ours, and Ray Serve's own proxy stays off: what a request may cost is decided
before anything is made of it, sentences of all requests meet in one place, and a batch whose
replica dies goes to another one without its client's knowing.
"""
