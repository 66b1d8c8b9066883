"""Files made wrong by chance are refused by name or read: a few of each kind, and all that ever did
harm. `make fuzz` has the others."""

from support.fuzz.runner import CRASHES, READ, REFUSED, Job, run

CASES = 25
TARGETS = ("tar", "tar.gz", "tar.xz", "tar.zst", "shard", "manifest", "checkpoint-header")
TARGETS += ("state-file", "recipe", "sentencepiece")


def test_no_file_does_harm() -> None:
    """One process for all, since most of the time goes by until it has everything imported."""
    kept = Job.kept()
    assert len(kept) == len(list(CRASHES.glob("*-*")))
    outcomes = list(
        run([*kept, *(Job(name, number) for name in TARGETS for number in range(CASES))])
    )
    harm = {job: outcome for job, outcome in outcomes if outcome not in (READ, REFUSED)}
    assert harm == {}
    for name in TARGETS:
        found = {outcome for job, outcome in outcomes if job.target == name}
        assert found == {READ, REFUSED}, name  # so that neither reading nor mutating is idle
