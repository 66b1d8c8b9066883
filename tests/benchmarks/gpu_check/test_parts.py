"""Files are split into parts and joined again; missing and damaged parts are named."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.files.json_files import edited_json

from benchmarks.gpu_check.collect import summary, transfers
from benchmarks.gpu_check.parts import (
    MIB,
    Expected,
    Manifest,
    PartsError,
    Piece,
    difference,
    join,
    piece_of,
    split,
)

PART_BYTES = 1000
SIZES = {"a-1.whl": 2500, "b-1.whl": 0, "c-1.whl": 500, "d-1.whl": 1, "e-1.whl": 999}


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """Return a folder with the parts of files that end inside parts and at their ends."""
    wheels, parts = tmp_path / "wheels", tmp_path / "parts"
    wheels.mkdir()
    parts.mkdir()
    for number, (name, size) in enumerate(SIZES.items()):
        (wheels / name).write_bytes(bytes((number + n * n) % 251 for n in range(size)))
    paths = sorted(wheels.iterdir())
    on_machine = {"torch": Expected("2.11", "2.13.0")}
    files, pieces = [piece_of(path) for path in paths], split(paths, parts, PART_BYTES)
    Manifest("3.12", "x86_64", files, pieces, on_machine, ["torch 2.11"]).write(parts)
    return parts


def joined(parts: Path) -> list[Path]:
    into = parts.parent / "joined"
    into.mkdir(exist_ok=True)
    return join(Manifest.read(parts), parts, into)


def test_parts_have_the_given_size_and_join_to_the_same_files(collected: Path) -> None:
    manifest = Manifest.read(collected)
    assert [part.size for part in manifest.parts] == [1000, 1000, 1000, 1000]
    files = joined(collected)
    assert [path.name for path in files] == list(SIZES)
    for path in files:
        assert path.read_bytes() == (collected.parent / "wheels" / path.name).read_bytes()


def test_a_manifest_is_read_back_as_written(collected: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(collected)
    assert manifest.on_machine == {"torch": Expected("2.11", "2.13.0")}
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_parts_of_a_former_collection_are_removed(collected: Path) -> None:
    file = collected.parent / "wheels" / "c-1.whl"
    split([file], collected, PART_BYTES)
    assert sorted(path.name for path in collected.glob("part-*")) == ["part-01"]


def test_only_missing_and_damaged_parts_are_reported(collected: Path) -> None:
    (collected / "part-01").unlink()
    content = bytearray((collected / "part-03").read_bytes())
    content[7] ^= 1
    (collected / "part-03").write_bytes(content)
    (collected / "part-04").write_bytes(b"short")
    with pytest.raises(PartsError, match="3 of 4 parts") as caught:
        joined(collected)
    message = str(caught.value)
    for said in ("part-01 is missing", "part-03 has sha256", "part-04 has 5 bytes", "Copy these"):
        assert said in message
    assert "part-02" not in message
    assert not list((collected.parent / "joined").iterdir())


def test_a_joined_file_that_differs_from_the_manifest_is_reported(collected: Path) -> None:
    manifest = Manifest.read(collected)
    first, *others = manifest.files
    replace(manifest, files=[replace(first, size=first.size - 1), *others]).write(collected)
    with pytest.raises(PartsError, match=r"a-1\.whl has sha256.*copy all"):
        joined(collected)


@pytest.mark.parametrize("name", ["../a.whl", "/etc/a.whl", "", ".hidden"])
def test_a_manifest_with_an_invalid_file_name_is_refused(collected: Path, name: str) -> None:
    with edited_json(collected / "manifest.json") as values:
        values["files"][0]["name"] = name
    with pytest.raises(PartsError, match="is not a valid file name"):
        Manifest.read(collected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 2}', "format 2; this checkout reads format 1"),
        ('{"format": 1, "files": []}', "damaged"),
        ("[]", "damaged"),
        ('{"format": 1', "damaged"),
    ],
)
def test_an_unreadable_manifest_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(PartsError, match=said):
        Manifest.read(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PartsError, match=r"manifest\.json does not exist\. Copy it"):
        Manifest.read(tmp_path)


def test_local_version_labels_and_trailing_zeros_are_no_difference() -> None:
    assert difference("torch", "2.13.0+cu130", "2.13.0") is None
    assert difference("torch", "2.13", "2.13.0") is None
    assert difference("torch", "2.10", "2.1") == "torch 2.10 instead of 2.1"
    assert difference("torch", None, "2.13.0") == "torch of the machine instead of 2.13.0"
    assert difference("torch", "1", None) is None


def test_the_summary_counts_transfers_with_and_without_the_checkout(collected: Path) -> None:
    parts = [Piece(f"part-{n}", 24 * MIB, "") for n in range(5)] + [Piece("part-5", MIB, "")]
    assert transfers(parts, 64 * MIB) == 3
    assert transfers(parts, 30 * MIB) == 5
    assert transfers(parts, 20 * MIB) is None
    manifest = replace(Manifest.read(collected), parts=parts)
    said = summary(manifest, Path("gpu-parts"), 40 * MIB)
    assert "121.0 MiB, in 6 parts" in said
    assert "3 for the parts alone, 6 if each also has this checkout (40.0 MiB)" in said
    assert "  torch 2.11" in said
    assert "--parts gpu-parts" in said
    assert "impossible" in summary(manifest, Path("gpu-parts"), 41 * MIB)
