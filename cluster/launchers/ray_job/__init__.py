"""A run as a job of a Ray cluster that is up.

::

    here                                       on the head
    submission.py ──job.json, shipped code──▶  runner.py   waits for room, starts `transloom train`,
    status.py     ◀──────record.py───────────              starts it again, keeps log and record
"""
