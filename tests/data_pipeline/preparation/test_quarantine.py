"""Quarantine of shards leaves everything else unchanged."""

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.preparation.quarantine import cursor_after, quarantine
from data_pipeline.storage.store import open_store

MakeSettings = Callable[..., DataSettings]
Pieces = dict[int, tuple[bytes, bytes]]  # source and target pieces of each pair


def open_reader(dataset: Path, settings: DataSettings) -> WindowReader:
    store = open_store(dataset, retry_delays_seconds=())
    return WindowReader(store, Manifest.load(store), settings)


def pairs_of(reader: WindowReader, epoch: int, window: int) -> Pieces:
    """Return a window's pairs with their pieces, wherever the pairs are in the window."""
    count = len(reader.layout(epoch, window).units)
    pairs: Pieces = {}
    for micro_batch in reader.fetch(epoch, window, 0, count):
        bounds = dict.fromkeys(micro_batch.fields, 0)
        for number, pair in enumerate(micro_batch.pair_ids.tolist()):
            ids = []
            for name, field in micro_batch.fields.items():
                stop = bounds[name] + int(field.lengths[number])
                ids.append(field.ids[bounds[name] : stop].tobytes())
                bounds[name] = stop
            pairs[pair] = (ids[0], ids[1])
    return pairs


def pairs_in(manifest: Manifest, *shards: int) -> set[int]:
    infos = [manifest.shards[shard] for shard in shards]
    return {pair for s in infos for pair in range(s.first_pair, s.first_pair + s.pairs)}


def test_pairs_outside_the_quarantined_shards_keep_their_numbers_and_windows(
    copy: Path, manifest: Manifest, data_settings: MakeSettings
) -> None:
    settings = data_settings(copy)
    before = open_reader(copy, settings)
    expected = {
        (epoch, window): pairs_of(before, epoch, window)
        for epoch in range(3)
        for window in range(3)
    }
    lost = [manifest.shards[number].name for number in (2, 7)]
    child = quarantine(copy, lost, "the disk broke")
    for name in lost:
        (copy / name).unlink()

    after = open_reader(copy, settings)
    gone = pairs_in(manifest, 2, 7)
    for (epoch, window), pairs in expected.items():
        left = {pair: pieces for pair, pieces in pairs.items() if pair not in gone}
        assert pairs_of(after, epoch, window) == left
    assert child.descends_from(manifest.identity)
    assert child.left_out_since(manifest.identity) == set(lost)
    assert child.tombstones[0].reason == "the disk broke"
    assert child.pairs == manifest.pairs


def test_windows_without_the_quarantined_shard_keep_every_byte(
    copy: Path, manifest: Manifest, data_settings: MakeSettings
) -> None:
    settings = data_settings(copy, window_shards=1)
    before = open_reader(copy, settings)
    quarantine(copy, [manifest.shards[5].name], "lost")
    after = open_reader(copy, settings)
    empty = 0
    for window in range(8):
        count = len(after.layout(0, window).units)
        if not count:
            empty += 1
            continue
        for one, other in zip(
            before.fetch(0, window, 0, count), after.fetch(0, window, 0, count), strict=True
        ):
            assert one.pair_ids.tolist() == other.pair_ids.tolist()
            assert one.fields["src"].ids.tobytes() == other.fields["src"].ids.tobytes()
    assert empty == 1


def test_training_skips_windows_that_are_empty_after_a_quarantine(
    copy: Path, manifest: Manifest, data_settings: MakeSettings
) -> None:
    settings = data_settings(copy, window_shards=1)
    quarantine(copy, [shard.name for shard in list(manifest.shards)[1:]], "all but the first")
    reader = open_reader(copy, settings)
    steps = local_rank_steps(reader, Cursor(), 0, 1, 1)
    left = pairs_in(manifest, 0)
    for _ in range(3):  # three epochs
        seen: list[int] = []
        while len(seen) < len(left):
            seen += next(steps).micro_batches[0].pair_ids.tolist()
        assert sorted(seen) == sorted(left)


def test_quarantine_of_all_shards_is_refused(
    copy: Path, manifest: Manifest, data_settings: MakeSettings
) -> None:
    quarantine(copy, [shard.name for shard in manifest.shards], "fire")
    with pytest.raises(
        DatasetError, match="All shards of the training corpus train are quarantined"
    ):
        open_reader(copy, data_settings(copy))


def test_a_child_manifest_replaces_its_parent_which_can_be_restored(
    copy: Path, dataset: Path, manifest: Manifest
) -> None:
    names = [shard.name for shard in manifest.shards]
    child = quarantine(copy, names[:1], "one")
    grandchild = quarantine(copy, [names[1], names[1], names[2]], "two at once")
    assert Manifest.load(open_store(copy)).identity == grandchild.identity
    assert [tombstone.shard for tombstone in grandchild.tombstones] == names[:3]
    assert grandchild.descends_from(child.identity)
    assert grandchild.origin == manifest.identity

    for ancestor in (child, manifest):
        kept = copy / f"manifest-{ancestor.identity[:16]}.json"
        assert kept.read_bytes() == ancestor.to_bytes()
        shutil.copy(kept, copy / "manifest.json")
        assert Manifest.load(open_store(copy)).identity == ancestor.identity
    assert (copy / "manifest.json").read_bytes() == (dataset / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        (["shards/train-00099.tar"], r"no shard 'shards/train-00099.tar'.*such as shards/train-0"),
        (["train-00001.tar"], "no shard 'train-00001.tar'"),
        (["shards/train-00001.tar"], "train-00001.tar of .* is already quarantined"),
        (["shards/train-00002.tar", "shards/train-00001.tar"], "already quarantined"),
    ],
)
def test_an_invalid_quarantine_changes_nothing(copy: Path, shards: list[str], message: str) -> None:
    quarantine(copy, ["shards/train-00001.tar"], "lost")
    before = {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    with pytest.raises(DatasetError, match=message):
        quarantine(copy, shards, "again")
    assert {path: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before


def test_the_cursor_moves_only_within_a_window_that_lost_a_shard(
    copy: Path, manifest: Manifest, data_settings: MakeSettings
) -> None:
    settings = data_settings(copy)
    reader = open_reader(copy, settings)
    lost = manifest.shards[3]
    child = quarantine(copy, [lost.name], "lost")

    def after(cursor: Cursor, identity: str = manifest.identity) -> Cursor:
        return cursor_after(child, settings, identity, cursor)

    for epoch in range(3):
        for window in range(3):
            begun = Cursor(epoch, window, 2)
            following = Cursor(epoch, window + 1) if window < 2 else Cursor(epoch + 1)
            damaged = lost.first_pair in pairs_of(reader, epoch, window)
            assert after(begun) == (following if damaged else begun)
            assert after(Cursor(epoch, window)) == Cursor(epoch, window)
            # A cursor of the child itself was planned without the shard.
            assert after(begun, child.identity) == begun


def test_a_resumed_run_reads_only_pairs_that_it_has_not_read(
    copy: Path, manifest: Manifest, data_settings: MakeSettings
) -> None:
    """The run stops in the middle of each window in turn; no pair of the epoch is read twice."""
    settings = data_settings(copy)
    before = open_reader(copy, settings)
    child = quarantine(copy, [manifest.shards[3].name], "lost")
    after = open_reader(copy, settings)
    steps = list(islice(local_rank_steps(before, Cursor(), 0, 1, 4), 40))
    steps = [step for step in steps if step.next_cursor.epoch == 0]
    for stop in range(0, len(steps), 3):
        seen = [p for s in steps[: stop + 1] for m in s.micro_batches for p in m.pair_ids.tolist()]
        cursor = cursor_after(child, settings, manifest.identity, steps[stop].next_cursor)
        for step in local_rank_steps(after, cursor, 0, 1, 1):
            if step.cursor.epoch:
                break
            seen += step.micro_batches[0].pair_ids.tolist()
        assert len(seen) == len(set(seen))


def test_a_run_finds_its_own_manifest_after_a_quarantine(dataset: Path, tmp_path: Path) -> None:
    """A data worker may start while the run still trains with the parent."""
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    before = Manifest.load(open_store(copy))
    child = quarantine(copy, [before.shards[0].name], "a test")
    assert Manifest.load(open_store(copy), before.identity) == before
    assert Manifest.load(open_store(copy), child.identity) == child
    with pytest.raises(DatasetFileError):
        Manifest.load(open_store(copy, retry_delays_seconds=()), "0" * 64)


def test_a_second_quarantine_moves_only_cursors_in_windows_that_lost_a_shard(
    copy: Path, manifest: Manifest, data_settings: MakeSettings
) -> None:
    """A run that continued after the first quarantine planned its windows without that shard."""
    settings = data_settings(copy, window_shards=1)
    reader = open_reader(copy, settings)
    first, second = manifest.shards[1], manifest.shards[6]
    child = quarantine(copy, [first.name], "lost")
    grandchild = quarantine(copy, [second.name], "lost too")
    assert grandchild.left_out_since(manifest.identity) == {first.name, second.name}
    assert grandchild.left_out_since(child.identity) == {second.name}
    moved = {"origin": 0, "child": 0}
    for window in range(8):
        pairs, begun = pairs_of(reader, 0, window), Cursor(0, window, 2)
        for name, parent, lost in (
            ("origin", manifest, (first, second)),
            ("child", child, (second,)),
        ):
            damaged = any(shard.first_pair in pairs for shard in lost)
            moved[name] += damaged
            assert (cursor_after(grandchild, settings, parent.identity, begun) != begun) == damaged
    assert moved == {"origin": 2, "child": 1}
