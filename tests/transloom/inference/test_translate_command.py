"""`transloom translate`: prefixes, alignments, long lines and input lines."""

import io
import itertools
import json
import os
import subprocess
import sys

import pytest
from support.invocation import invoke

from data_pipeline.errors import CorpusError
from data_pipeline.tasks.translation import heldout_pairs
from model.generation.search import length_penalty
from transloom.inference.translate import SENTENCES_AT_ONCE, LineOptions, translated_lines
from transloom.inference.translator import Translator

SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"]
PREFIXES = ["he is", "", "", "she will"]


@pytest.fixture
def command(untrained_run):
    """Return a function that runs the command and returns its output lines."""

    def run(*arguments, given=None):
        result = invoke("translate", untrained_run.path, *arguments, given=given)
        return result.stdout.removesuffix("\n").split("\n")

    return run


@pytest.fixture(scope="module")
def translator(untrained_run):
    return Translator.load(untrained_run.path)


@pytest.fixture
def lines(tmp_path):
    """Return a function that writes lines to a file and returns its path."""

    def write(name, written):
        file = tmp_path / name
        file.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")
        return file

    return write


def pharaoh(pairs):
    return " ".join(f"{source}-{target}" for source, target in pairs)


def test_each_translation_starts_with_the_prefix_of_its_line(command, translator, lines):
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


@pytest.mark.usefixtures("preloaded_processes")
def test_translate_prints_the_same_with_several_processes(command, lines):
    sentences = lines("s.txt", SENTENCES)
    options = (sentences, "--n-best", 2, "--json")
    assert command(*options, "--processes", 2) == command(*options)


def test_alignments_are_printed_as_a_column_or_as_json_pairs(command, translator, lines):
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


def test_each_of_the_n_best_translations_has_an_alignment(command, translator, lines):
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


def test_prefixes_match_their_lines_if_input_is_read_in_parts(translator, lines):
    """The input has more sentences than are read at once; prefixes repeat five words."""
    words = ["he", "she", "we", "they", "you"]
    count = SENTENCES_AT_ONCE + 3
    prefixes = lines("p.txt", [words[row % len(words)] for row in range(count)])
    sentences = lines("s.txt", ["non"] * count)
    said = list(translated_lines(translator, str(sentences), prefixes=str(prefixes)))
    alone = [translator.translate_n_best(["non"], prefixes=[word])[0][0].text for word in words]
    assert len(set(alone)) == len(words)
    assert said == [alone[row % len(words)] for row in range(count)]


@pytest.mark.parametrize("count", [1, 3])
def test_translate_refuses_too_few_and_too_many_prefixes(command, lines, count):
    sentences, prefixes = lines("s.txt", SENTENCES[:2]), lines("p.txt", PREFIXES[:count])
    with pytest.raises(CorpusError, match=rf"p\.txt has {count} lines? and .*s\.txt has 2 lines"):
        command(sentences, "--prefixes", prefixes)
    with pytest.raises(CorpusError, match=rf"standard input has {count} lines? and"):
        command(sentences, "--prefixes", "-", given="he\n" * count)


def test_the_error_for_a_too_long_prefix_names_its_line(translator, lines):
    count = SENTENCES_AT_ONCE + 3
    sentences = lines("s.txt", ["non"] * (count + 1))
    prefixes = lines("p.txt", [*["he"] * (count - 1), "he is " * 50, "he"])
    error = rf"p\.txt, line {count}: the prefix has \d+ tokens, but its translation may have"
    with pytest.raises(CorpusError, match=error):
        list(translated_lines(translator, str(sentences), prefixes=str(prefixes)))


def test_prefixes_need_a_file_and_sentences_from_a_file(command, translator, lines, monkeypatch):
    sentences = lines("s.txt", ["non"])
    with pytest.raises(CorpusError, match=r"nowhere\.txt cannot be read: No such file"):
        command(sentences, "--prefixes", "nowhere.txt")
    with pytest.raises(CorpusError, match="--prefixes - needs all sentences before"):
        command("--prefixes", "-", given="non\n")

    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(io.BytesIO(b"non\n")))
    with pytest.raises(CorpusError, match=r"--prefixes p\.txt needs all sentences"):
        list(translated_lines(translator, "-", prefixes="p.txt"))
    assert len(list(translated_lines(translator, "-", LineOptions(alignments=True)))) == 1


LONG = "je suis étudiant. " * 40  # 361 tokens


def test_too_long_lines_are_refused_before_the_search_starts(
    command, translator, lines, monkeypatch
):
    sentences = lines("s.txt", ["non", LONG, "oui", LONG])
    with monkeypatch.context() as context:
        context.setattr(Translator, "_search", None)  # must not be called
        with pytest.raises(CorpusError) as refused:
            command(sentences)
    (tokens,) = translator.count_tokens([LONG])
    assert f"s.txt, line 2 ({tokens:,} tokens), line 4 ({tokens:,} tokens)" in str(refused.value)
    assert "trained on at most 256 (data.max_source_length)" in str(refused.value)
    assert "--long-lines split" in str(refused.value)
    wanted = LineOptions(max_tokens=tokens)
    (typed,) = list(translated_lines(translator, str(lines("t.txt", ["non"])), wanted))
    assert typed == translator.translate(["non"])[0]
    said = command(sentences, "--max-tokens", tokens)
    assert len(said) == 4
    with pytest.raises(CorpusError, match=r"the requested maximum is 3"):
        command(sentences, "--max-tokens", 3)


def test_lines_that_need_too_much_memory_are_refused(command, translator, lines, monkeypatch):
    sentences = lines("s.txt", ["non", LONG])
    (tokens,) = translator.count_tokens([LONG])
    room = translator.memory.bytes(tokens)
    for module in ("translator", "searchers"):
        monkeypatch.setattr(f"transloom.inference.{module}.available_bytes", lambda: room - 1)
    with pytest.raises(CorpusError, match=r"line 2 .*the available memory suffices for"):
        command(sentences, "--max-tokens", 10**9)
    monkeypatch.setattr("transloom.inference.translator.available_bytes", lambda: room)
    assert len(command(sentences, "--max-tokens", 10**9)) == 2


@pytest.mark.long
def test_long_lines_are_split_on_request(command, translator, lines, capsys):
    sentences = ["non", LONG, "", "oui"]
    file = lines("s.txt", sentences)
    said = command(file, "--long-lines", "split")
    parts = translator.split(LONG, 256)
    assert len(parts) == 2
    assert max(translator.count_tokens(parts)) <= 256
    alone = [translator.translate([part])[0] for part in (*parts, "non", "", "oui")]
    assert said == [alone[2], " ".join(text for text in alone[:2] if text), *alone[3:]]
    told = [json.loads(line) for line in command(file, "--long-lines", "split", "--json")]
    assert [one["source"] for one in told] == sentences
    assert [one.get("parts") for one in told] == [None, 2, None, None]
    best = [translator.translate_n_best([part], n_best=1)[0][0] for part in parts]
    penalties = [length_penalty(len(t.ids) + 1, 0.6) for t in best]
    nats = sum(t.score * penalty for t, penalty in zip(best, penalties, strict=True))
    whole = length_penalty(sum(len(t.ids) + 1 for t in best), 0.6)
    assert told[1]["translations"][0]["score"] == pytest.approx(nats / whole)


@pytest.mark.parametrize("option", [["--n-best", "2"], ["--alignments"], ["--prefixes", "p"]])
def test_options_that_need_whole_lines_are_refused_with_split(untrained_run, option):
    words = ["translate", untrained_run.path, "s.txt", "--long-lines", "split", *option]
    result = invoke(*words, code=2)
    assert "leave out" in result.output


def test_each_input_line_gives_exactly_one_output_line(command, translator, monkeypatch):
    given = ["je\rsuis", "étudiant\u2028non\x85", "", "oui\x0b\0"]
    expected = translator.translate([given[0].replace("\r", " "), *given[1:]])
    assert command(given="\n".join(given).encode()) == expected
    assert command(given=b"") == [""]  # no input line, no output line
    texts = iter(["a\nb\r", "c"])
    monkeypatch.setattr(
        type(translator._tokenizers["tgt"]), "decode", lambda *_: list(itertools.islice(texts, 2))
    )
    assert command("--n-best", 2, "--beam-size", 2, given=b"oui\n") == ["a\\nb\\r", "c"]


@pytest.mark.long
def test_batches_of_long_sentences_are_small(translator, monkeypatch):
    """A batch has at most the allowed number of attention scores, or a single sentence."""
    sentences = ["non"] * 50 + [LONG] * 3 + ["je suis étudiant " * 10] * 5
    pairs = heldout_pairs(sentences, [""] * len(sentences))
    expected = translator.translate(sentences, max_tokens=1000)
    rows = max(len(batch.pair_ids) for batch in translator._batches(pairs))
    allowed = 40 * 40 * 4 * 4
    monkeypatch.setattr("transloom.inference.translator.BYTES_OF_SCORES", allowed)
    batches = translator._batches(pairs)
    sizes = [(len(batch.pair_ids), int(batch.fields["src"].lengths.max())) for batch in batches]
    assert sum(count for count, _ in sizes) == len(sentences)
    assert all(count == 1 or count * longest**2 * 16 <= allowed for count, longest in sizes)
    assert 1 < max(count for count, _ in sizes) <= rows
    assert translator.translate(sentences, max_tokens=1000) == expected


@pytest.fixture
def transloom_process(untrained_run):
    """Return a function that runs the command in a process: code, stdout, stderr, peak memory."""

    def run(data, *options, **environment):
        program = (
            "import resource, sys\n"
            "from transloom.cli.app import main\n"
            "try:\n    main()\n"
            "finally:\n"
            "    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "    print(f'peak {peak}', file=sys.__stderr__)\n"
        )
        words = ["translate", str(untrained_run.path), *map(str, options)]
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            input=data,
            capture_output=True,
            env=os.environ | environment,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        peak = int(done.stderr.split(b"peak ")[-1])
        return done.returncode, done.stdout, done.stderr.decode(), peak

    return run


@pytest.mark.long
def test_a_too_long_line_is_refused_without_extra_memory_in_any_locale(
    transloom_process, translator
):
    sentence = "elle était étudiante"
    latin = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0", "LC_ALL": "C"}
    code, said, _, innocent = transloom_process(f"{sentence}\n".encode(), "--json", **latin)
    assert code == 0
    assert json.loads(said)["source"] == sentence
    assert json.loads(said)["translations"][0]["text"] == translator.translate([sentence])[0]
    long = ("étudiant " * 4000).encode()
    code, said, error, peak = transloom_process(b"oui\n" + long + b"\n", **latin)
    assert (code, said) == (1, b"")
    assert "standard input, line 2 (" in error
    assert peak < 1.5 * innocent


@pytest.mark.long
def test_a_closed_output_pipe_causes_no_traceback(untrained_run):
    """The read end of the pipe is closed before the command starts."""
    reading, writing = os.pipe()
    os.close(reading)
    program = "from transloom.cli.app import main\nmain()"
    words = ["translate", str(untrained_run.path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        input=b"non\n",
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
