"""A `FileModel` is completed when it is first used."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from foundation.file_model import Count, FileModel

THREADS = 8


def test_several_threads_can_use_a_new_model_for_the_first_time() -> None:
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
