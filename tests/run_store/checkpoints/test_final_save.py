"""Time limit for saving the final checkpoint."""

from types import SimpleNamespace

from run_store.checkpoints import final_save
from run_store.checkpoints.final_save import FINAL_RETRY_SECONDS, final_save_attempts


def test_pauses_double_until_the_time_limit_and_a_last_attempt_follows(monkeypatch):
    now, pauses = [100.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(final_save, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    left = list(final_save_attempts())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 29.0]
    assert left == [60.0, 59.0, 57.0, 53.0, 45.0, 29.0, 0.0]
    assert sum(pauses) == FINAL_RETRY_SECONDS
