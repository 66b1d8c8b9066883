"""Number of elements that are processed at the same time, by the kind of device.

On a CPU, a chunk fits into its cache. On a GPU, each operation on a chunk takes longer than its
launch. The numbers are multiples of `norm.ROW` and `checksum.BLOCK`.
"""

CHUNKS = {"cpu": 2**16, "cuda": 2**25}
