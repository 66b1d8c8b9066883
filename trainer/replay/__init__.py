"""Replay of training steps: repeat them, compare them with the metrics file, and inspect them.

    checkpoint before ──build──▶ the loop of every run ──recorder──▶ lines ─┐
                                        │                                   ├─verdict─▶ ReplayReport
                               step inspector ──▶ reports of the ranks ─────┘

A replay writes nothing into the run's folder: its ranks work in a scratch folder.
"""
