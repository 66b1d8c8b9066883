"""webdataset at run time: imported late, without torch, and behind transloom's checks."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import run_python

from data_pipeline.dataset import samples
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.samples import read_samples, write_samples
from data_pipeline.errors import DatasetFileError

ROOT = Path(__file__).resolve().parents[3]
TWO = {"a/0": {"txt": b"0\n", "npz": b"00"}, "a/1": {"txt": b"1\n", "npz": b"11"}}
PACKED = write_samples(TWO.items())
SUFFIXES = ["npz", "txt"]


def imports_of(program: str) -> set[str]:
    """Return the modules of torch and webdataset that a separate process imports."""
    watched = f"""
import atexit, sys
seen = set()
sys.addaudithook(lambda event, args: seen.add(args[0]) if event == "import" else None)
atexit.register(lambda: print("\\n", *({{"torch", "webdataset"}} & seen)))
{program}
"""
    result = run_python(watched, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.long
@pytest.mark.parametrize(
    "program",
    [
        "import sys; from transloom.cli.app import main\n"
        "sys.argv = ['transloom', '--help']; main()",
        "import cluster.supervision.supervisor, cluster.supervision.run_checks\n"
        "import cluster.ranks.actor, cluster.ranks.process, trainer.assembly.run\n"
        "import cluster.data.workers, data_pipeline.preparation.prepare",
    ],
    ids=["--help", "the driver, a rank or a data worker before its first shard"],
)
def test_webdataset_is_not_imported_by_other_parts(program: str) -> None:
    assert "webdataset" not in imports_of(program)


SHARD = "from data_pipeline.dataset.samples import write_samples; write_samples([])"


@pytest.mark.long
def test_webdataset_is_imported_without_torch_but_later_imports_are_complete() -> None:
    program = f"""{SHARD}
assert {{"webdataset", "torch"}} <= seen
assert "torch" not in sys.modules
import torch.utils.data, webdataset
assert issubclass(webdataset.WebDataset, torch.utils.data.IterableDataset)
write_samples([("0", {{"txt": b"0"}})])
"""
    assert imports_of(program) == {"torch", "webdataset"}


@pytest.mark.long
def test_other_threads_can_import_torch_while_webdataset_is_imported() -> None:
    program = f"""
import importlib.util, threading
from data_pipeline.dataset.samples import _without_torch
found = []
with _without_torch():
    thread = threading.Thread(target=lambda: found.append(importlib.util.find_spec("torch")))
    thread.start()
    thread.join()
    try:
        import torch
    except ModuleNotFoundError:
        found.append("missing")
assert found[0] is not None and found[1] == "missing"
import torch
{SHARD}
"""
    assert imports_of(program) == {"torch", "webdataset"}


@pytest.mark.parametrize("wanted", [["npz", "txt"], ["txt"], ["npz"]])
def test_read_samples_returns_only_the_requested_members(wanted: list[str]) -> None:
    expected = {key: {name: sample[name] for name in wanted} for key, sample in TWO.items()}
    assert read_samples("x.tar", PACKED, SUFFIXES, wanted) == expected


class Library:
    """webdataset, which returns the given samples instead of those that it reads."""

    def __init__(self, *found: dict[str, object] | Exception) -> None:
        self._library = samples._library()
        self._found = found
        self.reraise_exception = self._library.reraise_exception
        self.tar_file_expander = self._library.tar_file_expander

    def group_by_keys(self, files: object, handler: object) -> Iterator[dict[str, object]]:
        for sample in self._found:
            if isinstance(sample, Exception):
                raise sample
            yield {"__url__": "x.tar", **sample}


A, B = ({"__key__": key, "npz": b"", "txt": b""} for key in TWO)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "found none that it reads"),
        ([A], r"found a/0\.npz, a/0\.txt\."),
        ([B, A], r"found a/1\.npz, a/1\.txt, a/0"),
        ([A, B, B], r"found .*a/1\.npz, a/1\.txt, a/1\.npz"),
        ([A, B | {"more": b""}], r"a/1\.more"),
        ([A, ValueError("duplicate", object())], "webdataset reads, found ValueError: duplicate"),
    ],
)
def test_shards_that_webdataset_reads_differently_are_refused(
    monkeypatch: pytest.MonkeyPatch, found: list[dict[str, object] | Exception], message: str
) -> None:
    library = Library(*found)
    monkeypatch.setattr(samples, "_library", lambda: library)
    with pytest.raises(DatasetFileError, match=message) as caught:
        read_samples("x.tar", PACKED, SUFFIXES, SUFFIXES)
    assert caught.value.file == "x.tar"


@pytest.mark.long
def test_the_program_in_the_docs_reads_a_dataset(
    dataset: Path, tmp_path: Path, manifest: Manifest
) -> None:
    text = (ROOT / "docs" / "how-to" / "datasets.md").read_text()
    (program,) = re.findall(r"```python\n([^`]*webdataset\.WebDataset[^`]*)```", text)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "phrasebook").symlink_to(dataset)
    result = run_python(program, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    counts = [re.findall(r" (\d+)", line) for line in result.stdout.splitlines()]
    found = [sum(map(int, column)) for column in zip(*counts, strict=True)]
    shards = list(manifest.shards)[:7]  # of 8
    assert found == [sum(s.pairs for s in shards), sum(s.tokens["src"] for s in shards)]
