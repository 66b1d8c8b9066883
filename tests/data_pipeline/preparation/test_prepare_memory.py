"""`prepare` needs no more memory for more text."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import prepare_job

from data_pipeline.config.pair import PairDataConfig


@pytest.fixture
def peaks(
    tmp_path: Path, data_config: Callable[..., PairDataConfig], sentences: Callable[..., list[str]]
) -> Callable[[int], dict[str, int]]:
    """Return a function that prepares pairs in a new process and returns peak memory by stage."""
    lines = [" ".join(sentences(4, seed)) for seed in range(1000)]

    def peaks(pairs: int) -> dict[str, int]:
        for name, first in (("a", 0), ("b", 500)):
            chosen = (lines[(first + number) % 1000] for number in range(pairs))
            with (tmp_path / name).open("w") as file:
                file.writelines(f"{number} {line}\n" for number, line in enumerate(chosen))
        data = data_config(
            tmp_path / "d",
            train=[{"source": str(tmp_path / "a"), "target": str(tmp_path / "b")}],
            pairs_per_block=64,
            cleaning={"drop_duplicates": True},
        )
        job = prepare_job.start(
            tmp_path,
            data=data.model_dump(mode="json", exclude_none=True),
            tokenizer={"vocabulary_size": 200, "training_pairs": 1000},
            processes=1,
            overwrite=True,
            buffered_bytes=2_000_000,
            pairs_per_chunk=2000,
        )
        output, _ = job.communicate()
        assert job.returncode == 0
        reports = [line.split() for line in output.splitlines()]
        assert reports[-1][:3] == ["write", str(pairs), str(pairs)]
        return {stage: int(peak) for stage, _, _, peak in reports}

    return peaks


@pytest.mark.long
def test_memory_does_not_grow_with_the_text(
    peaks: Callable[[int], dict[str, int]], tmp_path: Path
) -> None:
    few = peaks(5_000)
    less_text = sum((tmp_path / name).stat().st_size for name in "ab")
    many = peaks(25_000)
    more_text = sum((tmp_path / name).stat().st_size for name in "ab") - less_text
    assert more_text > 6_000_000
    # In memory, sentences and their tokens would take several times the size of the text.
    growth = {stage: many[stage] - few[stage] for stage in ("read", "write")}
    assert max(growth.values()) < more_text / 2, growth
