"""Find reads of device numbers by the host, which would have to wait for a GPU."""

from benchmarks.launches.counter import LaunchCounter


def host_reads(monkeypatch, network, *given):
    """Return the functions that read numbers during a pass; on a CPU these reads do not wait."""
    # Replace the loop over sentences, which only a CPU uses.
    monkeypatch.setattr("model.blocks.varlen.sentence_by_sentence", lambda query, *_: query)
    counter = LaunchCounter()
    with counter.part("passes"):
        network(*given)
    return [place.function for _, place in counter.waits]
