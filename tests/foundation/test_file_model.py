"""Models of files are built at their first use."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from foundation.file_model import Count, FileModel

THREADS = 8


def test_threads_can_be_the_first_to_use_a_model_at_the_same_time() -> None:
    for _ in range(20):

        class Part(FileModel):
            count: Count

        class Whole(FileModel):
            parts: tuple[Part, ...]

        barrier = Barrier(THREADS)

        def read(number: int, whole: type[Whole] = Whole, barrier: Barrier = barrier) -> Whole:
            barrier.wait()
            return whole.model_validate({"parts": [{"count": number}]})

        assert not Whole.__pydantic_complete__
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(read, range(THREADS)))
        assert [one.parts[0].count for one in found] == list(range(THREADS))
