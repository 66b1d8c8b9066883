"""Implementation of `scripts/same_bits`: comparison of two commits by the same trainings.

    __main__.py    the command: options, progress, verdict
    checkout.py    a commit's files, an environment that imports only them, its commands
    cases.py       the datasets and runs that both commits make
    comparison.py  comparison of two datasets or two run folders, bit by bit
    speed.py       benchmarks of both commits in turn, and the interval of their ratio

Nothing in this package imports transloom. It uses both commits only by their command line and reads
the files that they write, so their modules may differ in location and name.
"""
