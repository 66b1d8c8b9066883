"""Runs in an object store.

A run's driver works in a folder on its node's disk, and mirrors the folder to the object store:

    head      HEAD.json, which names all objects of a run and its owner; changed by compare-and-swap
    files     a run's small files as objects that are written once and named by their content
    lease     ownership of a run by one driver at a time
    mirror    the driver's thread that uploads files, publishes checkpoints and renews the lease
    pull      the run as a local folder, for a driver that starts, and for commands that read runs
    views     local copies that are kept up to date; view_cache limits their size
    changes   files and checkpoints that other processes add
    transfer  copies of whole runs: a push is an addition, a pull has the state files, too
    probe     checks that an object store can hold runs

State files of checkpoints go from the ranks to the object store directly, see
`run_store.checkpoints.state_upload`.
"""
