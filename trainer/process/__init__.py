"""Process of a rank: placement, process group, step timer, host memory, peak of the device."""
