"""The command line of make bench-peers."""

import sys

import pytest

from benchmarks.peers import peers


@pytest.mark.parametrize(
    ("option", "names", "valid"),
    [
        ("--peers", "eole,fairseq", "eole, hf"),
        ("--models", "huge", "tiny, base"),
        ("--precisions", "fp32,fp8", "fp32, bf16"),
        ("--peers", "", "eole, hf"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(option, names, valid, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers.py", option, names])
    with pytest.raises(SystemExit, match="2"):
        peers.main()
    said = capsys.readouterr().err
    assert f"argument {option}" in said
    assert repr(names.split(",")[-1]) in said
    assert valid in said
