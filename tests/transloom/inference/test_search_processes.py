"""Translation in several processes gives the same results and leaves no process behind."""

import pytest
from support.cluster.processes import children, wait_until

from model.errors import PrefixError
from trainer.errors import TranslationError
from transloom.inference import searchers
from transloom.inference.searchers import SENTENCES_OF_ONE_PROCESS, OwnSearcher
from transloom.inference.translator import Translator

SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"] * 5
PREFIXES = ["he is", "", "", "she will"] * 5


@pytest.fixture(scope="module")
def translator(untrained_run):
    return Translator.load(untrained_run.path, precision="bf16")


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("transloom.inference.translator.TOKENS_PER_BATCH", 20)


@pytest.mark.long
@pytest.mark.usefixtures("small_batches")
def test_processes_translate_the_same_and_end_with_the_context(translator):
    before, done = set(children()), []
    alone = translator.translate_n_best(SENTENCES, prefixes=PREFIXES, report=done.append)
    assert done[-1] == len(SENTENCES)
    assert len(done) > 2
    with translator.in_processes(2):
        assert len(set(children()) - before) >= 2
        assert translator.translate_n_best(SENTENCES, prefixes=PREFIXES) == alone
        # The error names the prefix by its number in the input, not in the batch of its process.
        too_long = [*PREFIXES[:13], "he is " * 50, *PREFIXES[14:]]
        with pytest.raises(PrefixError, match="Prefix 14 has ") as caught:
            translator.translate_n_best(SENTENCES, prefixes=too_long)
        assert caught.value.index == 13
        assert translator.translate_n_best(SENTENCES, prefixes=PREFIXES) == alone
    assert set(children()) <= before
    assert translator.translate_n_best(SENTENCES, prefixes=PREFIXES) == alone


@pytest.mark.usefixtures("preloaded_processes")
def test_a_process_that_is_killed_is_reported(translator):
    before = set(children())
    with translator.in_processes(2):
        wait_until(lambda: len(set(children()) - before) >= 2)
        for child in set(children()) - before:
            child.kill()
        with pytest.raises(TranslationError, match=r"translated was killed .*fewer --processes"):
            translator.translate(SENTENCES)


def test_the_number_of_processes_is_limited_by_sentences_and_memory(monkeypatch):
    monkeypatch.setattr("foundation.process_pool.cores", lambda: 8)
    processes_for = OwnSearcher(lambda decoding, batch: [], None).processes_for
    monkeypatch.setattr(searchers, "available_bytes", lambda: 100 * 2**30)
    assert processes_for(SENTENCES_OF_ONE_PROCESS - 1) == 1
    assert processes_for(SENTENCES_OF_ONE_PROCESS) == 8
    monkeypatch.setattr(searchers, "available_bytes", lambda: 7 * 2**30)
    assert processes_for(SENTENCES_OF_ONE_PROCESS) == 3
    monkeypatch.setattr(searchers, "available_bytes", lambda: 2**30)
    assert processes_for(SENTENCES_OF_ONE_PROCESS) == 1
