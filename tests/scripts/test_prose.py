"""`scripts/prose` on sources whose docstrings, comments, messages and names break each rule."""

from collections import Counter
from pathlib import Path

import pytest
from support.scripts import imported_script

SOURCE = '''
"""Hold a parser. # not a comment"""

class Reader:
    """What reads."""

    def read_anew(self, path):
        """Return the text."""
        # The file may be
        # away for a moment.
        if not path:  # noqa: SIM102
            raise ValueError(f"{path!r} lies in no directory. Name one.")
        parser.add_argument("--x", help="the number" + " of lines")
        return {"key": "a_value"}
'''


@pytest.fixture(scope="module")
def prose():
    with imported_script("prose") as module:
        yield module


@pytest.fixture
def rules(prose, tmp_path):
    def made(waivers=""):
        path = tmp_path / "rules.toml"
        path.write_text(f"[banned]\nanew = 'again'\n'lies in' = 'is in'\n{waivers}")
        return prose.Rules(path)

    return made


def waiver(rule, text, reason="a reason"):
    return f'[[waivers]]\nrule = "{rule}"\nfile = "a.py"\ntext = "{text}"\nreason = "{reason}"\n'


def test_passages_of_finds_all_kinds_of_passages(prose):
    found = [tuple(passage) for passage in prose.passages_of("a.py", SOURCE)]
    assert sorted(found) == [
        ("a.py", 1, "name", "a"),
        ("a.py", 2, "docstring", "Hold a parser. # not a comment"),
        ("a.py", 4, "name", "Reader"),
        ("a.py", 4, "public class", "Reader"),
        ("a.py", 5, "docstring", "What reads."),
        ("a.py", 7, "name", "read_anew"),
        ("a.py", 8, "docstring", "Return the text."),
        ("a.py", 9, "comment", "The file may be away for a moment."),
        ("a.py", 12, "message", "{} lies in no directory. Name one."),
        ("a.py", 13, "help", " of lines"),
        ("a.py", 13, "help", "the number"),
    ]
    in_tests = [*prose.passages_of("tests/a.py", SOURCE.replace("read_", "test_"))]
    kinds = Counter(passage.kind for passage in in_tests)
    assert kinds == {"name": 2, "docstring": 3, "comment": 1}


def test_findings_name_the_line_and_a_better_wording(prose, rules):
    passages = [*prose.passages_of("a.py", SOURCE), *prose.passages_of("b.py", "class Reader: ...")]
    assert list(map(str, rules().findings(passages))) == [
        "a.py:5: docstring: opens with 'What': What reads.",
        "a.py:7: name: 'anew', better again: read_anew",
        "a.py:12: message: 'lies in', better is in: {} lies in no directory. Name one.",
        "b.py:1: public class: a class of this name is in a.py: Reader",
    ]


def test_a_waiver_applies_to_one_rule_and_needs_a_reason(prose, rules):
    passages = list(prose.passages_of("a.py", SOURCE))
    with_waivers = rules(waiver("banned", "read_anew") + waiver("question", "Return"))
    assert [f.passage.line for f in with_waivers.findings(passages)] == [5, 12]
    assert with_waivers.unused_waivers() == ["Return"]
    with pytest.raises(ValueError, match="'read_anew' has no reason"):
        rules(waiver("banned", "read_anew", reason=" "))


def test_names_are_split_into_words(prose):
    words = prose.words_of_name
    assert words("HTTPServer_of2x/file") == ["http", "server", "of", "2", "x", "file"]
    assert words("_Anew") == ["anew"]


def test_a_sample_with_the_same_seed_has_the_same_passages(prose):
    kinds = ["name", "docstring", "comment", "message", "help"]
    passages = [
        prose.Passage(file, n, kind, f"{prefix}{kind} {n}")
        for file, prefix in (("a.py", ""), ("tests/b.py", "test_"), ("tests/b.py", "name_"))
        for n in range(60)
        for kind in kinds
    ]
    first = prose.sample(passages, 3)
    of_product, of_tests = first[:70], first[70:]
    counts = {"docstring": 30, "comment": 15, "message": 15, "help": 10}
    assert Counter(passage.kind for passage in of_product) == counts
    assert {passage.file for passage in of_tests} == {"tests/b.py"}
    assert {passage.kind for passage in of_tests} >= {"name", "docstring", "comment"}
    assert not any(p.kind == "name" and p.text.startswith("name_") for p in of_tests)
    assert len(set(first)) == 100
    assert prose.sample(passages, 3) == first != prose.sample(passages, 4)


def test_prose_checks_the_files_of_all_packages_and_tests(prose):
    packages = {path.relative_to(prose.ROOT).parts[0] for path in prose.product_files()}
    assert packages == {path.parent.name for path in prose.ROOT.glob("*/__init__.py")}
    assert Path(__file__).resolve() in prose.checked_files()
