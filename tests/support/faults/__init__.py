"""Faults at exact points of a run, and checks of the run afterwards.

::

    site/sitecustomize.py   in every process under test: stops it at a requested point
    moments.py              the points ("moments"), and requests for them
    cluster.py              a Ray cluster whose processes stop at moments; it can lose nodes or its
                            head
    recipe.py               the recipe of the runs
    trial.py                one run: its driver, its record, its remaining processes
    faults.py               the faults
    case.py                 a fault at a moment: its cost, and whether the curve is the same
    matrix.py               the pairs of faults and moments, and why others are left out
    preemptions.py          one run, preempted repeatedly
    stage.py                fixtures that the tests of a file share
    table.py                the results, for docs/benchmarks/recovery.md
"""
