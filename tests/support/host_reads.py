"""Reads by the host of numbers that are on the device, for which it would wait for a GPU."""

from benchmarks.launches.counter import LaunchCounter


def host_reads(monkeypatch, compute):
    """Return the functions that read numbers when `compute` is called; on a CPU nobody waits."""
    # The loop over sentences is that of a CPU.
    monkeypatch.setattr("model.blocks.varlen.sentence_by_sentence", lambda query, *_: query)
    counter = LaunchCounter()
    with counter.part("passes"):
        compute()
    return [place.function for _, place in counter.waits]
