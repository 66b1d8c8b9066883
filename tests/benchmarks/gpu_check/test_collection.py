"""A collection contains what the target lacks, in the versions and with the hashes of the lock."""

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.wheel import write_wheel

from benchmarks.gpu_check.collection import Collection, Pin, read_pins
from benchmarks.gpu_check.parts import PartsError, sha256_of
from benchmarks.gpu_check.wheels import Needed, Target

APP = [Needed(Requirement("app"), "the test")]
BINARY = "cp312-cp312-manylinux_2_28_x86_64"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of wheels; by its configuration, pip takes wheels only from there."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    write_wheel(folder, "app", requires=["part>=1", 'newer; python_version >= "3.12"', "torch"])
    write_wheel(folder, "part", "1.5", tag=BINARY)
    write_wheel(folder, "part", "1.6", tag=BINARY)
    write_wheel(folder, "newer")
    return folder


def collection_of(tmp_path: Path, index: Path, **versions: str) -> Collection:
    """Return a collection whose lock has one version of each wheel in the index."""
    wanted = {"app": "1.0", "part": "1.5", "newer": "1.0"} | versions
    pins = {}
    for name, version in wanted.items():
        wheels = index.glob(f"{name}-{version}-*.whl")
        pins[name] = Pin(version, frozenset(map(sha256_of, wheels)))
    folder = tmp_path / "wheels"
    folder.mkdir(exist_ok=True)
    return Collection(folder, Target("3.12", "x86_64", 28, {"torch": "2.11"}), pins)


def names(paths: list[Path]) -> list[str]:
    return [path.name.partition("-py3")[0].partition("-cp")[0] for path in paths]


def test_locked_versions_are_downloaded_once_and_damaged_wheels_again(
    tmp_path: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = collection_of(tmp_path, index)
    first = collection.complete(APP)
    assert names(first) == ["app-1.0", "newer-1.0", "part-1.5"]
    assert "downloading wheels (2): newer, part" in capsys.readouterr().out

    assert collection.complete(APP) == first
    assert "downloading" not in capsys.readouterr().out

    (part,) = collection.folder.glob("part-*")
    intact = part.read_bytes()
    part.write_bytes(intact[:-1])
    assert collection.complete(APP) == first
    assert part.read_bytes() == intact
    said = capsys.readouterr().out
    assert f"{part.name} is damaged" in said
    assert "downloading wheels (1): part" in said


def test_a_damaged_unlocked_wheel_is_downloaded_again(tmp_path: Path, index: Path) -> None:
    version = importlib.metadata.version("pip")
    whole = write_wheel(index, "pip", version).read_bytes()
    collection = collection_of(tmp_path, index)
    damaged = write_wheel(collection.folder, "pip", version)
    damaged.write_bytes(whole.replace(b"Name: pip", b"Name: pop"))
    assert collection.complete([Needed(Requirement("pip"), "the test")]) == [damaged]
    assert damaged.read_bytes() == whole


def test_a_requirement_that_is_in_no_lock_is_reported(tmp_path: Path, index: Path) -> None:
    write_wheel(index, "app", requires=["unknown-part>3"])
    with pytest.raises(PartsError, match=r"unknown-part>3 \(required by app\).*--have"):
        collection_of(tmp_path, index).complete(APP)


def test_a_locked_version_that_does_not_meet_a_requirement_is_reported(
    tmp_path: Path, index: Path
) -> None:
    write_wheel(index, "app", requires=["part>=2"])
    with pytest.raises(PartsError, match=r"part>=2 \(required by app\).*make lock"):
        collection_of(tmp_path, index).complete(APP)


def test_a_wheel_whose_hash_is_not_in_the_lock_is_refused(tmp_path: Path, index: Path) -> None:
    collection = collection_of(tmp_path, index)
    write_wheel(index, "app", code="exchanged = True")
    with pytest.raises(PartsError, match=r"(?s)pip download.*HASHES.*Repeat the command"):
        collection.complete(APP)
    assert not list(collection.folder.iterdir())


def test_the_lock_is_read_with_all_versions_and_hashes() -> None:
    root = Path(__file__).resolve().parents[3]
    text = (root / "locks" / "cuda.txt").read_text()
    pins = read_pins(text)
    assert len(pins) == sum(line[:1] not in "# " for line in text.splitlines())
    assert sum(len(pin.hashes) for pin in pins.values()) == text.count("--hash=sha256:")
