"""Lines stay whole and in order after a kill, with two writers, and on a full disk."""

import textwrap

import pytest
from support.files.disk_calls import record_disk_calls
from support.files.small_disk import run_on_small_disk

from run_store.errors import RunError
from run_store.record import line_file, line_reader
from run_store.record.line_file import LineFile


@pytest.mark.parametrize("block_bytes", [3, 65536])
@pytest.mark.parametrize(
    ("torn", "whole"),
    [("one\ntwo\nthr", "one\ntwo\n"), ("one\n", "one\n"), ("on", ""), ("", "")],
)
def test_a_torn_last_line_is_cut(tmp_path, monkeypatch, block_bytes, torn, whole):
    monkeypatch.setattr(line_reader, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "lines"
    path.write_text(torn)
    calls = record_disk_calls(monkeypatch)
    lines = LineFile(path)
    assert calls[0] == ("sync", tmp_path)
    assert path.read_text() == whole
    lines.append("é")
    lines.close()
    assert path.read_text() == whole + "é\n"


def test_a_second_process_cannot_open_a_line_file_for_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(line_file, "LOCK_TIMEOUT_SECONDS", 0.2)
    path = tmp_path / "lines"
    first = LineFile(path)
    with pytest.raises(RunError, match="another process is training this run"):
        LineFile(path)
    first.close()
    LineFile(path).close()


@pytest.mark.needs("small disks")
def test_lines_wait_in_memory_while_the_disk_is_full(tmp_path):
    program = textwrap.dedent(
        f"""
        import errno, json
        from pathlib import Path
        from run_store.errors import CheckpointError, RunError
        from run_store.record.line_file import LineFile

        disk = Path({str(tmp_path / "disk")!r})
        path, ballast = disk / "lines", disk / "ballast"

        def fill_disk():
            with ballast.open("ab", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

        notices = []
        lines = LineFile(path, notices.append)
        written = []

        def append(count):
            for _ in range(count):
                written.append(f"line {{len(written)}} " + "y" * 150)
                lines.append(written[-1])

        def is_whole():
            return path.read_text() == "".join(line + "\\n" for line in written)

        append(10)
        lines.sync()
        assert is_whole()
        fill_disk()
        append(100)
        text = path.read_text()
        assert text.endswith("\\n") and written[:20] == text.split("\\n")[:20]
        on_disk = text.count("\\n")
        assert 10 < on_disk < 110
        assert len(notices) == 1
        try:
            lines.sync()
        except CheckpointError as error:
            refusal = str(error)
        ballast.unlink()
        append(1)
        assert is_whole()
        lines.sync()
        fill_disk()
        append(100)
        try:
            lines.close()
        except RunError as error:
            loss = str(error)
        assert path.read_text().endswith("\\n")
        LineFile(path).close()  # unlocked
        print(json.dumps([notices, refusal, loss, 110 - on_disk]))
        """
    )
    notices, refusal, loss, waited = run_on_small_disk(tmp_path / "disk", 64, program)
    assert len(notices) == 3
    assert "full disk" in notices[0]
    assert f"{waited + 1} lines" in notices[1]
    assert "full disk" in notices[2]
    assert f"{waited} lines cannot be written" in refusal
    assert "lost" in loss
    assert "start the same command again" in loss
