"""`transloom translate`: prefixes, alignments, and the sentences that they belong to."""

import io
import json

import pytest
from typer.testing import CliRunner

from cluster.cli.app import app
from cluster.commands.translate import SENTENCES_AT_ONCE, translated_lines
from data_pipeline.errors import CorpusError
from trainer.inference.translator import Translator

SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"]
PREFIXES = ["he is", "", "", "she will"]


@pytest.fixture
def command(untrained_run):
    """Runs the command and returns what it printed, line by line; its own errors are raised."""

    def run(*arguments, given=None):
        words = ["translate", untrained_run.path, *arguments]
        result = CliRunner().invoke(app, [str(word) for word in words], input=given)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout.removesuffix("\n").split("\n")

    return run


@pytest.fixture(scope="module")
def translator(untrained_run):
    return Translator.load(untrained_run.path)


@pytest.fixture
def lines(tmp_path):
    """Writes lines to a file and returns its path."""

    def write(name, written):
        file = tmp_path / name
        file.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")
        return file

    return write


def pharaoh(pairs):
    return " ".join(f"{source}-{target}" for source, target in pairs)


def test_prefixes_begin_the_translations_of_their_lines(command, translator, lines):
    sentences, prefixes = lines("s.txt", SENTENCES), lines("p.txt", PREFIXES)
    expected = translator.translate_n_best(SENTENCES, prefixes=PREFIXES)
    said = command(sentences, "--prefixes", prefixes)
    assert said == [translations[0].text for translations in expected]
    assert all(text.startswith(prefix) for text, prefix in zip(said, PREFIXES, strict=True))
    free = command(sentences)
    assert [said[row] for row in (1, 2)] == [free[row] for row in (1, 2)]
    assert said[0] != free[0]
    piped = "".join(f"{sentence}\n" for sentence in SENTENCES)
    assert command("--prefixes", prefixes, given=piped) == said
    begun = "".join(f"{prefix}\n" for prefix in PREFIXES)
    assert command(sentences, "--prefixes", "-", given=begun) == said


def test_several_processes_print_the_same(command, lines):
    sentences = lines("s.txt", SENTENCES)
    options = (sentences, "--n-best", 2, "--json")
    assert command(*options, "--processes", 2) == command(*options)


def test_alignments_are_a_column_or_pairs_in_json(command, translator, lines):
    sentences = lines("s.txt", SENTENCES)
    best = [found[0] for found in translator.translate_n_best(SENTENCES)]
    aligned = translator.align_words(SENTENCES, best)
    assert any(aligned)
    assert command(sentences, "--alignments") == [
        f"{translation.text}\t{pharaoh(pairs)}"
        for translation, pairs in zip(best, aligned, strict=True)
    ]
    said = [json.loads(line) for line in command(sentences, "--alignments", "--json")]
    assert [one["source"] for one in said] == SENTENCES
    assert [one["translations"][0]["alignment"] for one in said] == [
        [list(pair) for pair in pairs] for pairs in aligned
    ]
    plain = [json.loads(line) for line in command(sentences, "--json")]
    assert all(set(t) == {"text", "score"} for one in plain for t in one["translations"])


def test_each_of_the_n_best_has_its_own_alignment(command, translator, lines):
    sentences, prefixes = lines("s.txt", SENTENCES), lines("p.txt", PREFIXES)
    options = (sentences, "--prefixes", prefixes, "--alignments", "--n-best", 3)
    expected = []
    for sentence, prefix in zip(SENTENCES, PREFIXES, strict=True):
        (found,) = translator.translate_n_best([sentence], prefixes=[prefix])
        best = found[:3]
        aligned = translator.align_words([sentence] * len(best), best)
        expected.append([(t.text, t.score, pairs) for t, pairs in zip(best, aligned, strict=True)])
    assert command(*options) == [
        f"{text}\t{pharaoh(pairs)}" for one in expected for text, _, pairs in one
    ]
    for line, one in zip(command(*options, "--json"), expected, strict=True):
        translations = json.loads(line)["translations"]
        assert [t["text"] for t in translations] == [text for text, _, _ in one]
        assert [t["score"] for t in translations] == pytest.approx([score for _, score, _ in one])
        assert [t["alignment"] for t in translations] == [
            [list(pair) for pair in pairs] for _, _, pairs in one
        ]


def test_prefixes_stay_with_their_sentences_over_many_batches(translator, lines):
    """More sentences than are read at once, of which each has a prefix of its own."""
    words = ["he", "she", "we", "they", "you"]
    count = SENTENCES_AT_ONCE + 3
    prefixes = lines("p.txt", [words[row % len(words)] for row in range(count)])
    sentences = lines("s.txt", ["non"] * count)
    said = list(translated_lines(translator, str(sentences), prefixes=str(prefixes)))
    alone = [translator.translate_n_best(["non"], prefixes=[word])[0][0].text for word in words]
    assert len(set(alone)) == len(words)
    assert said == [alone[row % len(words)] for row in range(count)]


@pytest.mark.parametrize("count", [1, 3])
def test_too_many_or_too_few_prefixes_are_counted(command, lines, count):
    sentences, prefixes = lines("s.txt", SENTENCES[:2]), lines("p.txt", PREFIXES[:count])
    with pytest.raises(CorpusError, match=rf"p\.txt \({count}\) and of .*s\.txt \(2\) differ"):
        command(sentences, "--prefixes", prefixes)
    with pytest.raises(CorpusError, match=rf"of standard input \({count}\) and of"):
        command(sentences, "--prefixes", "-", given="he\n" * count)


def test_a_prefix_that_is_too_long_is_named_by_its_line(translator, lines):
    count = SENTENCES_AT_ONCE + 3
    sentences = lines("s.txt", ["non"] * (count + 1))
    prefixes = lines("p.txt", [*["he"] * (count - 1), "he is " * 50, "he"])
    error = rf"p\.txt, line {count}: this prefix has \d+ tokens, but its translation may have"
    with pytest.raises(CorpusError, match=error):
        list(translated_lines(translator, str(sentences), prefixes=str(prefixes)))


def test_prefixes_that_cannot_be_used_are_named(command, translator, lines, monkeypatch):
    sentences = lines("s.txt", ["non"])
    with pytest.raises(CorpusError, match=r"nowhere\.txt cannot be read: No such file"):
        command(sentences, "--prefixes", "nowhere.txt")
    with pytest.raises(CorpusError, match="With --prefixes - the sentences must come from a file"):
        command("--prefixes", "-", given="non\n")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("non\n"))
    with pytest.raises(CorpusError, match=r"With --prefixes p\.txt the sentences must come from"):
        list(translated_lines(translator, "-", prefixes="p.txt"))
    assert len(list(translated_lines(translator, "-", alignments=True))) == 1
