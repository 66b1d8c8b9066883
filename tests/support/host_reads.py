"""Reads by the host of numbers that are on the device, for which it would wait for a GPU."""

from benchmarks.launches.counter import LaunchCounter


def host_reads(monkeypatch, network, *given):
    """Return the functions that read numbers in a pass; on a CPU they cost no wait."""
    # The loop over sentences is that of a CPU.
    monkeypatch.setattr("model.blocks.varlen.sentence_by_sentence", lambda query, *_: query)
    counter = LaunchCounter()
    with counter.part("passes"):
        network(*given)
    return [place.function for _, place in counter.waits]
