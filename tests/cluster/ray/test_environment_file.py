"""Read variables by name from a file on the node that only its owner can read."""

import os
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.ray.environment_file import file_reference, read_environment, read_file, require

TEXT = """
# keys
ONE=1
export TWO="two words = two"
THREE='x'
FOUR=
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.env"
    path.write_text(TEXT)
    path.chmod(0o600)
    return path


def test_a_file_has_lines_of_names_and_values(file: Path) -> None:
    assert read_file(file) == {"ONE": "1", "TWO": "two words = two", "THREE": "x", "FOUR": ""}


@pytest.mark.parametrize(("names", "taken"), [([], {"ONE", "TWO"}), (["TWO"], {"TWO"})])
def test_a_process_reads_all_or_only_the_named_variables_of_its_file(
    names: list[str], taken: set[str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ONE", "TWO", "THREE", "FOUR"):
        monkeypatch.setenv(name, "before")
    pointed = file_reference(file, names)
    assert "two words" not in str(pointed)
    for name, value in pointed.items():
        monkeypatch.setenv(name, value)
    read_environment()
    changed = {name for name in ("ONE", "TWO") if os.environ[name] != "before"}
    assert changed == taken
    assert os.environ["TWO"] == "two words = two"


def test_optional_variables_are_read_if_they_exist(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ONE", "TWO", "FIVE"):
        monkeypatch.setenv(name, "before")
    for name, value in file_reference(file, ["ONE"], welcome=["TWO", "FIVE"]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("THREE", "before")
    read_environment()
    found = [os.environ[name] for name in ("ONE", "TWO", "FIVE", "THREE")]
    assert found == ["1", "two words = two", "before", "before"]


def test_a_process_without_a_file_reads_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSLOOM_ENVIRONMENT_FILE", raising=False)
    before = dict(os.environ)
    read_environment()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ONE=1\nsecret without a name", "line 2 is not of the form NAME=VALUE"),
        ("a-b=secret", "line 1 is not of the form NAME=VALUE"),
        ("A=secret\0", "line 1 holds a NUL"),
        ("A='secret", "line 1: expected .* after the closing quote of A"),
        ("A='secret'more", "line 1: expected .* after the closing quote of A"),
        ("A=" + 100_000 * "x", "has 100,002 bytes, expected a regular file of at most 100,000"),
    ],
)
def test_a_malformed_file_is_refused_without_showing_its_values(
    text: str, complaint: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(ClusterError, match=complaint) as refusal:
        read_file(file)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b # a comment", "b"),
        ("A=b#c", "b#c"),
        ("A=# a comment", ""),
        ("A='b # c' # a comment", "b # c"),
        ('A="it\'s"', "it's"),
        ("A=it's", "it's"),
        ("A=  b  ", "b"),
        ("A=' b '", " b "),
        (r"export A='$HOME \n'", r"$HOME \n"),
        ("\ufeffA=b\r", "b"),
    ],
)
def test_values_are_read_without_quotes_and_comments(file: Path, line: str, value: str) -> None:
    file.write_text(f"{line}\n")
    assert read_file(file) == {"A": value}


def test_a_file_that_others_can_read_is_refused(file: Path) -> None:
    file.chmod(0o640)
    with pytest.raises(ClusterError, match=rf"mode 0640.*chmod 600 {file}"):
        read_file(file)


def test_errors_about_a_missing_file_or_variable_name_the_node(tmp_path: Path) -> None:
    node = os.uname().nodename
    with pytest.raises(ClusterError, match=f"cannot be read on node {node}: No such file"):
        read_file(tmp_path / "nothing")
    with pytest.raises(ClusterError, match=f"TWO: neither in /x nor in .*{node}"):
        require(["ONE", "TWO"], {"ONE": "1"}, Path("/x"))
