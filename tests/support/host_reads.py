"""Reads by the host of numbers that are on the device, for which it would wait for a GPU."""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Operations(TorchDispatchMode):
    def __init__(self, found):
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        waits = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
        if waits & set(operation.tags) and kwargs.get("output_size") is None:
            self._found.append(str(operation))
        return operation(*args, **kwargs)


@contextmanager
def host_reads(monkeypatch):
    """Yield a list of the reads within the context; on a CPU nobody waits."""
    found, tolist = [], torch.Tensor.tolist
    # The loop over sentences is that of a CPU.
    monkeypatch.setattr("model.blocks.varlen.sentence_by_sentence", lambda query, *_: query)
    with monkeypatch.context() as patch, _Operations(found):
        patch.setattr(torch.Tensor, "tolist", lambda x: (found.append(x.shape), tolist(x))[1])
        yield found
