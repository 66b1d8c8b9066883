"""metrics.jsonl over restarts: nothing torn, nothing twice, nothing changed in silence."""

import json

import pytest

from trainer.errors import TrainerError
from trainer.tracking import metrics
from trainer.tracking.metrics import MetricsRecord, lines_after, read_metrics


def train_line(step: int, loss: float | None = None, digest: str = "d"):
    return {
        "step": step,
        "kind": "train",
        "loss": 1.0 / step if loss is None else loss,
        "learning_rate": 0.1,
        "target_tokens": 10,
        "data_digest": f"{digest}{step}",
    }


def record_steps(path, resume_step, steps):
    record = MetricsRecord(path, resume_step)
    for step in steps:
        assert record.append(train_line(step)) is None
    record.close()


def test_repeated_steps_are_not_written_twice(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 8))
    before = path.read_text()
    record_steps(path, 5, range(6, 8))
    assert path.read_text() == before
    record_steps(path, 5, range(6, 10))
    assert [line["step"] for line in read_metrics(path)] == list(range(1, 10))


def test_a_torn_last_line_is_cut_and_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 5))
    path.write_bytes(path.read_bytes()[:-7])
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    record_steps(path, 2, range(3, 6))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_another_curve_in_a_repeated_step_is_an_event(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 4))
    record = MetricsRecord(path, 1)
    assert record.append(train_line(2, loss=0.5 * (1 + 1e-7))) is None  # rounding
    event = record.append(train_line(3, loss=0.4, digest="other"))
    record.close()
    assert event["event"] == "replay_mismatch"
    assert event["replayed_step"] == 3
    assert event["fields"] == {"data_digest": ["d3", "other3"], "loss": [1 / 3, 0.4]}
    assert read_metrics(path)[-1] == event


@pytest.mark.parametrize("field", ["learning_rate", "target_tokens"])
def test_another_rate_or_other_tokens_in_a_repeated_step_are_an_event(tmp_path, field):
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 4))
    record = MetricsRecord(path, 2)
    line = train_line(3)
    event = record.append(line | {field: line[field] * 1.000001})
    record.close()
    assert event["fields"] == {field: [line[field], line[field] * 1.000001]}


def test_a_step_is_skipped_again_when_it_is_repeated(tmp_path):
    path = tmp_path / "metrics.jsonl"
    skipped = {"step": 4, "kind": "skipped", "slots": [1], "data_digest": "d4"}
    record_steps(path, 0, range(1, 4))
    record = MetricsRecord(path, 3)
    record.append(skipped)
    record.append(train_line(5))
    record.close()

    record = MetricsRecord(path, 4)  # of the checkpoint after the skipped step
    assert not record.has(skipped)
    record.close()
    before = path.read_text()
    record = MetricsRecord(path, 3)
    assert record.has(skipped)
    assert record.append(skipped) is None
    event = record.append(skipped | {"step": 5, "data_digest": "d5"})
    record.close()
    assert path.read_text().startswith(before)
    assert read_metrics(path)[5:] == [event]
    assert event["fields"]["kind"] == ["train", "skipped"]


def test_an_event_stands_at_the_last_recorded_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 8))
    record = MetricsRecord(path, 5)
    assert record.event("resumed", from_step=5)["step"] == 7
    record.close()


def test_a_sentence_with_strange_line_ends_is_one_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record = MetricsRecord(path, 0)
    line = train_line(1) | {"sample": "a\u2028b\x85c\x0bd\re"}
    record.append(line)
    record.close()
    assert read_metrics(path) == [line]


@pytest.mark.parametrize("block_bytes", [3, 50, 65536])
def test_the_record_is_read_from_its_end(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(metrics, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "metrics.jsonl"
    lines = []
    for step in range(1, 8):
        lines.append({"step": step, "kind": "train", "text": "é\u2028" * step})
        if step % 3 == 0:
            lines.append({"step": step, "kind": "validation"})
    lines.insert(5, {"step": 4, "kind": "event"})
    whole = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(whole + '{"torn": ', encoding="utf-8")
    assert read_metrics(path) == lines
    assert lines_after(path, 0) == lines
    assert lines_after(path, 7) == []
    for step in (3, 4, 6):
        (train,) = [n for n, e in enumerate(lines) if (e["step"], e["kind"]) == (step, "train")]
        assert lines_after(path, step) == lines[train + 1 :]
    path.write_text('{"step": 1')
    assert read_metrics(path) == []
    path.write_text("")
    assert read_metrics(path) == []


@pytest.mark.parametrize("block_bytes", [3, 50, 65536])
def test_a_record_is_followed_while_it_grows(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(metrics, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 6))
    event = json.dumps({"step": 5, "kind": "event", "text": "é\u2028"}, ensure_ascii=False)
    texts = [event + "\n" + event[:7], event[7:], "\n", ""]  # as they come, torn too

    def grow() -> bool:
        with path.open("a", encoding="utf-8") as file:
            file.write(texts.pop(0))
        return not texts

    followed = list(metrics.follow(path, 3, grow))
    assert followed == read_metrics(path)[3:]
    assert len(followed) == 4
    texts = [""]
    assert list(metrics.follow(path, 0, grow)) == read_metrics(path)
    path.write_text("")
    texts = [event + "\n"]
    assert list(metrics.follow(path, 3, grow)) == [json.loads(event)]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "kind": "train"}\n{"step": "kind"}x\n')
    with pytest.raises(TrainerError, match="no JSON object"):
        read_metrics(path)


def test_a_validation_that_was_made_up_for_is_recorded_once(tmp_path):
    """It gave way to a request to stop, so whatever goes on from that checkpoint makes it again."""
    path = tmp_path / "metrics.jsonl"
    record_steps(path, 0, range(1, 4))
    validation = {"step": 3, "kind": "validation", "loss": 2.0}
    record = MetricsRecord(path, 3)
    record.append(validation)
    record.append(train_line(4))
    record.close()
    before = path.read_text()
    record = MetricsRecord(path, 3)
    record.append(validation)
    record.append(train_line(4))
    record.close()
    assert path.read_text() == before
