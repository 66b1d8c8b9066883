"""A run as a job of a running Ray cluster.

::

    client                                         head node
    submission.py ──job.json, uploaded code──▶     runner.py   waits for capacity, starts and
    status.py     ◀──────job_record.py───────                  restarts `transloom train`, keeps
                                                               log and record
"""
