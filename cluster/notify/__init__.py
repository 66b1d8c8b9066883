"""Notifications of a run's events, sent by the driver.

::

    supervisor ─▶ NotifyingListener ─▶ display and log, as without notifications
                        │
                        ▼ lines, notices, vitals, the error that ends the run
                  run_events.py ─▶ Notification ─▶ delivery.py ─▶ targets.py
                                                   a queue and    a command
                                                   a thread for
                                                   each target
"""
