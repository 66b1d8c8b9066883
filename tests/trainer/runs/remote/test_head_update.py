"""The change of a head is a function of the head, whichever of several heads it replaces."""

from support.records.checkpoints import make_header

from trainer.checkpoints.state_objects import PartList
from trainer.runs.remote.file_table import FileTable, file_part
from trainer.runs.remote.head import RunHead
from trainer.runs.remote.head_update import CheckpointRequests, HeadUpdate, Publication

PUBLICATION = Publication(make_header(30), PartList(files=[]), "owners/00000001/step-30")


def table(**files: bytes) -> FileTable:
    """A table of files of one part each."""
    return FileTable(
        entries={name: [file_part(f"o/{name}-{data!r}", data)] for name, data in files.items()}
    )


def update_of(additions: FileTable, **changes) -> HeadUpdate:
    values = {
        "files": table(mine=b"1"),
        "former_additions": additions,
        "taken": dict(additions.entries),
        "publication": PUBLICATION,
        "removed": frozenset({"step-00000010"}),
        "moved_aside": {"step-00000020": "damaged-step-00000020"},
    }
    return HeadUpdate(**values | changes)


def test_a_change_that_is_applied_again_changes_nothing_more():
    """The answer to the first swap may be lost, so the change meets a head that has it already."""
    head = RunHead(
        additions=table(note=b"a"),
        checkpoints={"step-00000010": "p/10", "step-00000020": "p/20"},
        stop_request="user",
    )
    before = head.model_copy(deep=True)
    update = update_of(head.additions)
    after = update.apply(head)
    assert after.checkpoints == {
        "damaged-step-00000020": "p/20",
        "step-00000030": "owners/00000001/step-30",
    }
    assert (after.files, after.additions) == (update.files, FileTable())
    assert (after.stop_request, after.data_workers_request) == (None, None)
    assert update.apply(after) == after
    assert head == before
    assert update.removed_prefixes(head) == ["p/10"]
    assert update.removed_prefixes(after) == []


def test_what_another_process_adds_before_the_swap_stays():
    seen = table(note=b"a", text=b"b")
    update = update_of(seen)
    now = RunHead(additions=table(note=b"changed", text=b"b", new=b"c"))
    assert update.apply(now).additions == table(note=b"changed", new=b"c")
    index = [file_part("o/index", b"{}").model_dump()]
    indexed = FileTable.model_validate({"index": index})
    assert update.apply(RunHead(additions=indexed)).additions == indexed
    assert update_of(indexed).apply(RunHead(additions=indexed)).additions == FileTable()


def test_a_checkpoint_that_is_published_during_a_round_is_that_of_the_next_one():
    requests = CheckpointRequests()
    requests.publish(PUBLICATION)
    requests.remove(["step-00000010"])
    publication, removed = requests.pending
    update = update_of(FileTable(), publication=publication, removed=removed)
    newer = Publication(make_header(40), PartList(files=[]), "owners/00000001/step-40")
    requests.publish(newer)
    requests.remove(["step-00000020"])
    requests.complete(update)
    assert requests.take_published() == ["step-00000030"]
    assert requests.take_published() == []
    assert requests.pending == (newer, frozenset({"step-00000020"}))
    requests.retract(30)
    assert requests.pending[0] == newer
    requests.retract(40)
    assert requests.pending[0] is None
