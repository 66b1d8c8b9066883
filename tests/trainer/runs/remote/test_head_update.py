"""The change of a head is a function of the head, whichever of several heads it replaces."""

from support.records.checkpoints import make_header

from trainer.checkpoints.state_objects import PartList
from trainer.runs.remote.files import FileObjects, Files
from trainer.runs.remote.head import RunHead
from trainer.runs.remote.head_update import CheckpointRequests, HeadUpdate, Publication

PUBLICATION = Publication(make_header(30), PartList(files=[]), "owners/00000001/step-30")


def files(**digits: str) -> Files:
    """Files of one object each."""
    return {
        name: FileObjects(bytes=1, chunks=[f"1-{digit * 32}"]) for name, digit in digits.items()
    }


def update_of(before: Files, **changes) -> HeadUpdate:
    values = {
        "before": before,
        "files": before | files(mine="1"),
        "removed_files": frozenset({"gone"}),
        "publication": PUBLICATION,
        "removed": frozenset({"step-00000010"}),
        "moved_aside": {"step-00000020": "damaged-step-00000020"},
    }
    return HeadUpdate(**values | changes)


def test_a_change_that_is_applied_again_changes_nothing_more():
    """The answer to the first swap may be lost, so the change meets a head that has it already."""
    head = RunHead(
        files=files(kept="2", gone="3"),
        checkpoints={"step-00000010": "p/10", "step-00000020": "p/20"},
        stop_request="user",
    )
    before = head.model_copy(deep=True)
    update = update_of(head.files, files=files(kept="2", mine="1"))
    after = update.apply(head)
    assert after.checkpoints == {
        "damaged-step-00000020": "p/20",
        "step-00000030": "owners/00000001/step-30",
    }
    assert after.files == files(kept="2", mine="1")
    assert (after.stop_request, after.data_workers_request) == (None, None)
    assert update.apply(after) == after
    assert head == before
    assert update.removed_prefixes(head) == ["p/10"]
    assert update.removed_prefixes(after) == []


def test_what_another_process_adds_before_the_swap_stays():
    before = files(note="2", gone="3", changed="4")
    update = update_of(before, files=files(note="2", mine="1", changed="5"))
    now = RunHead(files=files(note="6", gone="7", changed="8", new="9"))
    expected = files(note="6", gone="7", changed="5", new="9", mine="1")
    assert update.apply(now).files == expected


def test_a_checkpoint_that_is_published_during_a_round_is_that_of_the_next_one():
    requests = CheckpointRequests()
    requests.publish(PUBLICATION)
    requests.remove(["step-00000010"])
    publication, removed = requests.pending
    update = update_of({}, publication=publication, removed=removed)
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
