"""Two commits through the same trainings: what `scripts/same_bits` consists of.

    __main__.py    the command: options, progress, verdict
    checkout.py    a commit's files, an environment in which they alone are imported, its commands
    cases.py       what is prepared and trained
    comparison.py  two datasets, or two run folders, bit by bit; what differs first
    speed.py       benchmarks of both in turn, and the interval of their ratio

Nothing in here imports transloom. Both commits are seen from outside, by their command line and
by the files they write, so that their modules may lie elsewhere and have other names.
"""
