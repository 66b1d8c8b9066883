"""Delivery of notifications in the background: retries, limits, and a bounded wait at the end."""

import threading
import time
from pathlib import Path

import pytest
from support.cluster.processes import HANG_SECONDS, wait_until
from support.receiving_program import SECRET, VARIABLE, ReceivingProgram

from cluster.notify import delivery
from cluster.notify.delivery import MAX_WAITING, PAUSES_SECONDS, Deliveries, DeliveryThread
from cluster.notify.notification import Notification, RunEvent
from cluster.notify.targets import DeliveryProblem, open_target
from run_store.folder import RunFolder
from trainer.notify_config import NotifyTarget


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Shorten pauses to a hundredth."""
    monkeypatch.setattr(delivery, "PAUSES_SECONDS", tuple(p / 100 for p in PAUSES_SECONDS))


class Notices:
    """Notices from any thread."""

    def __init__(self):
        self.texts = []
        self._changed = threading.Condition()

    def __call__(self, text):
        with self._changed:
            self.texts.append(text)
            self._changed.notify_all()

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.texts) >= count, HANG_SECONDS)


class ScriptedTarget:
    """Target that answers by a function and records what it was sent."""

    name = "TRANSLOOM_X"

    def __init__(self, answer=lambda number: None):
        self.answer = answer
        self.sent = []
        self.stopped = threading.Event()

    def send(self, notification, seconds):
        self.sent.append(notification)
        return self.answer(len(self.sent))

    def stop(self):
        self.stopped.set()


def message(text="finished"):
    return Notification.of(RunEvent("finished", text), RunFolder(Path("runs/tiny")), 9)


def target_of(program):
    return open_target(NotifyTarget(command_from=VARIABLE), {VARIABLE: program.command})


def wait_for_threads():
    for thread in threading.enumerate():
        if thread.name == "notifications":
            thread.join(HANG_SECONDS)
            assert not thread.is_alive()


def test_a_failed_attempt_is_repeated_with_the_same_id(tmp_path):
    notices, program = Notices(), ReceivingProgram(tmp_path / "program", 1, 3, 0)
    deliveries = Deliveries([target_of(program)], notices)
    deliveries.put(message())
    program.wait_for(3)
    deliveries.put(message("another"))
    program.wait_for(4)
    deliveries.finish()
    first, second, third, another = (sent["id"] for sent in program.messages)
    assert first == second == third != another
    assert notices.texts == []


def test_attempts_are_limited_and_the_notice_of_a_loss_contains_no_secret(tmp_path):
    notices, program = Notices(), ReceivingProgram(tmp_path / "program", 5)
    deliveries = Deliveries([target_of(program)], notices)
    deliveries.put(message())
    notices.wait_for(1)
    deliveries.finish()
    assert len(program.messages) == len(PAUSES_SECONDS) + 1
    (text,) = notices.texts
    assert f"finished to {VARIABLE} could not be delivered" in text
    assert "exit code 5" in text
    assert "after 6 attempts" in text
    assert SECRET not in text


def test_a_final_refusal_is_not_repeated():
    target, notices = (
        ScriptedTarget(lambda n: DeliveryProblem("not started", False)),
        Notices(),
    )
    deliveries = Deliveries([target], notices)
    deliveries.put(message())
    notices.wait_for(1)
    deliveries.finish()
    assert len(target.sent) == 1


def test_a_notice_of_an_unexpected_error_names_only_its_class():
    def fail(number):
        raise ValueError(f"https://host/{SECRET}")

    notices = Notices()
    deliveries = Deliveries([ScriptedTarget(fail)], notices)
    deliveries.put(message())
    notices.wait_for(1)
    deliveries.finish()
    assert "unexpected ValueError" in notices.texts[0]
    assert SECRET not in notices.texts[0]


def test_a_target_that_hangs_delays_neither_the_caller_nor_other_targets(tmp_path):
    release, notices = threading.Event(), Notices()
    hung, other = ScriptedTarget(lambda n: release.wait() and None), ScriptedTarget()
    program = ReceivingProgram(tmp_path / "program")
    deliveries = Deliveries([hung, other, target_of(program)], notices)
    for number in range(5):
        deliveries.put(message(str(number)))
    program.wait_for(5)
    assert [sent["text"] for sent in program.messages] == ["0", "1", "2", "3", "4"]
    assert len(hung.sent) == 1
    release.set()
    deliveries.finish()
    assert len(hung.sent) == len(other.sent) == 5


def test_a_full_queue_drops_its_oldest_messages():
    release, notices = threading.Event(), Notices()
    target = ScriptedTarget(lambda n: release.wait() and None)
    deliveries = Deliveries([target], notices)
    deliveries.put(message("being sent"))
    wait_until(lambda: target.sent)
    for number in range(MAX_WAITING + 3):
        deliveries.put(message(str(number)))
    assert len(notices.texts) == 3
    assert "is lost, because 50 later ones are waiting" in notices.texts[0]
    release.set()
    deliveries.finish()
    kept = [str(number) for number in range(3, MAX_WAITING + 3)]
    assert [sent.text for sent in target.sent] == ["being sent", *kept]


def test_the_end_does_not_wait_for_a_target_that_hangs(monkeypatch):
    """The target hangs until after `finish` has returned, so `finish` cannot have waited for it."""
    monkeypatch.setattr(delivery, "LAST_SECONDS", 0.2)
    release, notices = threading.Event(), Notices()
    target = ScriptedTarget(lambda n: release.wait() and DeliveryProblem("late"))
    deliveries = Deliveries([target], notices)
    for _ in range(3):
        deliveries.put(message())
    deliveries.finish()
    assert target.stopped.is_set()
    (text,) = notices.texts
    assert "3 notifications to TRANSLOOM_X could" in text
    assert "within 0.2 s of the run's end" in text
    release.set()
    wait_for_threads()
    assert len(notices.texts) == 1  # the thread reports nothing afterwards
    assert len(target.sent) == 1


def test_attempts_are_repeated_at_the_end_while_time_is_left():
    failures = [DeliveryProblem("exit code 1")] * 2
    target = ScriptedTarget(lambda number: failures[number - 1] if number <= 2 else None)
    notices = Notices()
    deliveries = Deliveries([target], notices)
    deliveries.put(message())
    deliveries.finish()
    assert len(target.sent) == 3
    assert notices.texts == []


def test_a_pause_between_attempts_ends_when_the_run_ends(monkeypatch):
    monkeypatch.setattr(delivery, "PAUSES_SECONDS", (HANG_SECONDS * 10,))
    paused = threading.Event()

    def fail_once(number):
        paused.set()
        return DeliveryProblem("exit code 1") if number == 1 else None

    target, notices = ScriptedTarget(fail_once), Notices()
    deliveries = Deliveries([target], notices)
    deliveries.put(message())
    assert paused.wait(HANG_SECONDS)
    deliveries.finish()
    assert len(target.sent) == 2
    assert notices.texts == []


def test_an_interrupt_ends_only_the_wait_for_deliveries(monkeypatch):
    def interrupt(thread):
        raise KeyboardInterrupt

    monkeypatch.setattr(delivery.DeliveryThread, "join", interrupt)
    target, notices = ScriptedTarget(), Notices()
    Deliveries([target], notices).finish()
    assert target.stopped.is_set()
    assert notices.texts == []


def test_abandoned_messages_cause_no_notice():
    release, notices = threading.Event(), Notices()
    target = ScriptedTarget(lambda n: release.wait() and DeliveryProblem("late"))
    deliveries = Deliveries([target], notices)
    deliveries.put(message())
    deliveries.abandon()
    release.set()
    wait_for_threads()
    assert notices.texts == []


def test_a_message_whose_loss_is_reported_is_not_counted_again_at_the_end():
    left = []
    target = ScriptedTarget(lambda number: DeliveryProblem("refused", is_temporary=False))
    reported = threading.Event()

    def notice(text):
        left.append(thread.abandon())  # the run ends at this point
        reported.set()

    thread = DeliveryThread(target, notice)
    thread.put(message())
    assert reported.wait(HANG_SECONDS)
    assert left == [0]
    wait_for_threads()


def test_all_targets_share_the_deadline_of_the_end(monkeypatch):
    calls = []
    monkeypatch.setattr(DeliveryThread, "begin_end", lambda self, deadline: calls.append(deadline))
    monkeypatch.setattr(DeliveryThread, "join", lambda self: calls.append("join"))
    deliveries = Deliveries([ScriptedTarget() for _ in range(3)], Notices())
    deliveries.finish()
    assert len(set(calls[:3])) == 1
    assert calls[3:] == ["join"] * 3
    deliveries.abandon()
    wait_for_threads()


def test_an_attempt_at_the_end_gets_only_the_remaining_time(monkeypatch):
    seconds, ending = [], threading.Event()

    class Slow(ScriptedTarget):
        def send(self, notification, most):
            seconds.append(most)
            assert ending.wait(HANG_SECONDS)
            return DeliveryProblem("exit code 1") if len(seconds) == 1 else None

    thread = DeliveryThread(Slow(), Notices())
    thread.put(message())
    while not seconds:
        time.sleep(0.001)
    thread.begin_end(time.monotonic() + 3.0)
    ending.set()
    thread.join()
    assert seconds[0] == delivery.ATTEMPT_SECONDS
    assert 0 < seconds[1] <= 3.0
    wait_for_threads()
