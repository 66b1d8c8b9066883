"""metrics.jsonl over restarts: no torn or repeated lines, and differences are recorded."""

import json
import re
from functools import partial
from math import nan

import pytest
from support.records.lines import SPIKE_FIELDS, skipped_line, train_line, validation_line

from run_store.errors import RunError
from run_store.record import line_reader, metrics_file
from run_store.record.line_reader import LineTail, readable_lines
from run_store.record.metrics_file import MetricsFile, lines_after, read_metrics
from run_store.record.metrics_lines import (
    Preempted,
    Repeated,
    ReplayMismatch,
    Resized,
    Resumed,
    parse_line,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def record_lines(path, resume_step, *lines):
    record = MetricsFile(path, resume_step)
    for line in lines:
        record.append(line)
    record.close()


def record_steps(path, resume_step, steps):
    record = MetricsFile(path, resume_step)
    for step in steps:
        assert record.append(train_line(step)) is None
    record.close()


def test_repeated_steps_are_not_written_twice(path):
    record_steps(path, 0, range(1, 8))
    before = path.read_text()
    record_steps(path, 5, range(6, 8))
    assert path.read_text() == before
    record_steps(path, 5, range(6, 10))
    assert [line.step for line in read_metrics(path)] == list(range(1, 10))


def test_a_torn_last_line_is_cut_and_its_step_is_written_again(path):
    record_steps(path, 0, range(1, 5))
    path.write_bytes(path.read_bytes()[:-7])
    assert [line.step for line in read_metrics(path)] == [1, 2, 3]
    record_steps(path, 2, range(3, 6))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_a_repeated_step_with_other_data_or_loss_is_recorded_as_an_event(path):
    record_steps(path, 0, range(1, 4))
    record = MetricsFile(path, 1)
    assert record.append(train_line(2, loss=0.5 * (1 + 1e-7))) is None  # a difference by rounding
    event = record.append(train_line(3, loss=0.4, data_digest="other3"))
    record.close()
    fields = {"data_digest": ["d3", "other3"], "loss": [1 / 3, 0.4]}
    assert event == ReplayMismatch(step=3, replayed_step=3, fields=fields)
    assert read_metrics(path)[-1] == event


@pytest.mark.parametrize(("field", "other"), [("learning_rate", 0.1000001), ("target_tokens", 11)])
def test_a_repeated_step_with_another_rate_or_token_count_is_an_event(path, field, other):
    record_steps(path, 0, range(1, 4))
    record = MetricsFile(path, 2)
    event = record.append(train_line(3, **{field: other}))
    record.close()
    assert event.fields == {field: [getattr(train_line(3), field), other]}


def test_a_skipped_step_is_skipped_again_when_it_is_repeated(path):
    skipped = skipped_line(4)
    record_steps(path, 0, range(1, 4))
    record_lines(path, 3, skipped, train_line(5))

    record = MetricsFile(path, 4)  # as after the checkpoint of the skipped step
    assert not record.has(skipped)
    record.close()
    before = path.read_text()
    record = MetricsFile(path, 3)
    assert record.has(skipped)
    assert record.append(skipped) is None
    event = record.append(skipped_line(5))
    record.close()
    assert path.read_text().startswith(before)
    assert read_metrics(path)[5:] == [event]
    assert event.fields["kind"] == ["train", "skipped"]


def test_the_loss_of_a_repeated_spike_is_compared_with_the_recorded_one(path):
    first, other = (skipped_line(1, **SPIKE_FIELDS | {"loss": loss}) for loss in (9.5, 9.75))
    record_lines(path, 0, first)
    for again, fields in ((first, None), (other, {"loss": [9.5, 9.75]})):
        record = MetricsFile(path, 0)
        event = record.append(again)
        record.close()
        assert (event and event.fields) == fields


def test_last_step_is_the_last_recorded_step_even_after_a_resume(path):
    record_steps(path, 0, range(1, 8))
    record = MetricsFile(path, 5)
    assert record.last_step == 7
    record.close()


def test_a_sentence_with_unusual_line_separators_stays_on_one_line(path):
    record = MetricsFile(path, 0)
    line = validation_line(1, text="a\u2028b\x85c\x0bd\re")
    record.append(line)
    record.close()
    assert read_metrics(path) == [line]


@pytest.mark.parametrize("block_bytes", [3, 50, 65536])
def test_lines_after_a_step_are_read_from_the_end_of_the_record(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(line_reader, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "metrics.jsonl"
    lines = []
    for step in range(1, 8):
        lines.append(train_line(step))
        if step % 3 == 0:
            lines.append(validation_line(step, text="é\u2028" * step))
    lines.insert(5, Preempted(step=4))
    whole = "".join(line.to_json() + "\n" for line in lines)
    path.write_text(whole + '{"torn": ', encoding="utf-8")
    assert read_metrics(path) == lines
    assert lines_after(path, 0) == lines
    assert lines_after(path, 7) == []
    for step in (3, 4, 6):
        (train,) = [n for n, e in enumerate(lines) if e == train_line(step)]
        assert lines_after(path, step) == lines[train + 1 :]
    path.write_text('{"step": 1')
    assert read_metrics(path) == []
    path.write_text("")
    assert read_metrics(path) == []


@pytest.mark.parametrize("block_bytes", [3, 50, 65536])
def test_follow_yields_the_lines_that_are_appended_to_a_record(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(line_reader, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 6))
    said = Resumed(step=5, from_step=3, promise="é\u2028")
    event = said.to_json()
    texts = [event + "\n" + event[:7], event[7:], "\n", ""]  # pieces of text, also parts of lines

    def grow() -> bool:
        with path.open("a", encoding="utf-8") as file:
            file.write(texts.pop(0))
        return not texts

    followed = list(metrics_file.follow(path, 3, grow))
    assert followed == read_metrics(path)[3:]
    assert len(followed) == 4
    texts = [""]
    assert list(metrics_file.follow(path, 0, grow)) == read_metrics(path)
    path.write_text("")
    texts = [event + "\n"]
    assert list(metrics_file.follow(path, 3, grow)) == [said]


@pytest.mark.parametrize("renews", [False, True])
def test_follow_continues_after_its_last_step_when_a_record_is_rewound(path, renews):
    record_steps(path, 0, range(1, 6))

    def rewind() -> bool:
        whole = "".join(train_line(step).to_json() + "\n" for step in range(1, 4))
        other = path.with_name("other") if renews else path
        other.write_text(whole)
        other.replace(path)
        record_steps(path, 3, range(4, 8))
        return True

    followed = list(metrics_file.follow(path, 3, rewind))
    assert [line.step for line in followed] == [4, 5, 6, 7]


def test_follow_continues_after_its_last_step_when_a_replaced_record_is_absent(
    tmp_path, monkeypatch
):
    path, away = tmp_path / "metrics.jsonl", tmp_path / "away"
    record_steps(path, 0, range(1, 6))

    class Vanishing(LineTail):
        def read(self):
            new = super().read()
            if new.is_other:
                path.rename(away)
            return new

    def wait() -> bool:
        if away.exists():
            away.rename(path)
            return True
        record_steps(tmp_path / "other", 0, range(1, 8))
        (tmp_path / "other").replace(path)
        return False

    monkeypatch.setattr(metrics_file, "LineTail", Vanishing)
    followed = list(metrics_file.follow(path, 3, wait))
    assert [line.step for line in followed] == [4, 5, 6, 7]


def test_follow_refuses_a_line_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_file, "LineTail", partial(LineTail, longest_line_bytes=2**18))
    path = tmp_path / "metrics.jsonl"
    path.write_text(train_line(1).to_json() + "\n" + "x" * 2**18)
    with pytest.raises(RunError, match=r"metrics\.jsonl has a line at byte .* too long"):
        list(metrics_file.follow(path, 0, lambda: True))


def test_readable_lines_leaves_out_and_counts_invalid_lines():
    lines = [train_line(1), train_line(2)]
    one, two = (line.to_json().encode() for line in lines)
    text = one + b'\n\xff\xfe\n{"kind": "train"}\n[]\n' + two + b"\n"
    assert readable_lines(text, parse_line) == (lines, 3)
    assert readable_lines(b"", parse_line) == ([], 0)


def test_the_problem_of_a_damaged_line_is_reported(path):
    whole = train_line(1).to_json()
    for damaged, problem in [
        ('{"step": 1}x', "trailing characters"),
        ("[1]", "should be an object"),
        ('{"step": 1, "kind": "train"}', "train.epoch: Field required"),
        # Each line has one problem, because the order of problems differs between versions of
        # pydantic.
        (re.sub('"loss": [^,]+, ', "", whole), "train.loss: Field required"),
        (whole.replace("{", '{"lose": 1.0, ', 1), "train.lose: Extra inputs are not permitted"),
        (whole.replace('"kind": "train"', '"kind": "brain"'), "kind"),
    ]:
        path.write_text(f"{whole}\n{damaged}\n")
        with pytest.raises(RunError, match=f"which is invalid.*{problem}"):
            read_metrics(path)


def test_a_line_of_a_later_version_is_refused_naming_both_versions(path):
    path.write_text(train_line(1).to_json().replace('"version": 2', '"version": 3') + "\n")
    with pytest.raises(RunError, match="version 3, but this version reads up to 2"):
        read_metrics(path)


def test_scores_recorded_without_their_decoding_are_read(path):
    text = validation_line(3, bleu=12.5).to_json()
    before = text.replace(', "decoding": "greedy"', "")
    assert before != text
    path.write_text(f"{before}\n{text}\n")
    old, new = read_metrics(path)
    assert [line.scores["bleu"].value for line in (old, new)] == [12.5, 12.5]
    assert [line.scores["bleu"].decoding for line in (old, new)] == [None, "greedy"]
    assert new.scores["loss"].decoding is None


@pytest.mark.parametrize(
    "line",
    [
        train_line(1, goodput=0.5),
        skipped_line(2),
        validation_line(3),
        validation_line(3, loss=nan),
        Resumed(step=3, from_step=2, numerics_changed={"ranks": [1, 2]}),
        Resized(step=3, from_ranks=1, to_ranks=2),
        Preempted(step=3),
        Repeated(step=3, grids_widened=["w"]),
        ReplayMismatch(step=3, replayed_step=2, fields={"loss": [1.0, None]}),
    ],
)
def test_written_lines_are_read_back(path, line):
    record_lines(path, 0, line)
    assert read_metrics(path) == [line]
    assert json.loads(path.read_text())["version"] == 2


def test_a_validation_repeated_by_resumed_runs_is_recorded_once(path):
    """A stop interrupted the validation, so each run from that checkpoint repeats it."""
    record_steps(path, 0, range(1, 4))
    validation = validation_line(3)
    record_lines(path, 3, validation, train_line(4))
    before = path.read_text()
    record_lines(path, 3, validation, train_line(4))
    assert path.read_text() == before
