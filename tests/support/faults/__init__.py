"""Faults at exact moments of a run, and what must be true of the run afterwards.

::

    site/sitecustomize.py   in every process under test: stops it at a moment that is wanted
    moments.py              the moments, and how they are asked for
    cluster.py              a Ray cluster whose processes stop so; it can lose a node or its head
    recipe.py               what the runs train
    trial.py                one run: its driver, its record, what is left of it
    faults.py               the faults
    case.py                 a fault at a moment: what it took, and whether the curve is the same
    matrix.py               which faults meet which moments, and why the others do not
    preemptions.py          one run, preempted repeatedly
    stage.py                what the tests of a file share
    table.py                the results, for docs/benchmarks/recovery.md
"""
