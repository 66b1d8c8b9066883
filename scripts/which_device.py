"""Print one line that says whether this environment computes on the CPU or on CUDA."""

import torch


def describe() -> str:
    version, cuda = torch.__version__, torch.version.cuda
    if cuda is None:
        return f"transloom is set up for CPU (torch {version})."
    if not torch.cuda.is_available():
        return f"transloom is set up for CPU: torch {version} has CUDA {cuda}, but sees no GPU."
    count, name = torch.cuda.device_count(), torch.cuda.get_device_name(0)
    return f"transloom is set up for CUDA {cuda} (torch {version}, {count} x {name})."


if __name__ == "__main__":
    print(describe())
