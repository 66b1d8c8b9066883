"""Batches of waiting sentences: similar lengths, within the budget, oldest sentence first."""

from concurrent.futures import Future

from hypothesis import given, settings
from hypothesis import strategies as st

from transloom.inference.serving.batches import RequestedSearch, Sentence, SentenceQueue
from transloom.inference.serving.settings import Batching

PLAIN = RequestedSearch(None, 1, False, False)
WIDE = RequestedSearch(None, 5, False, False)
BUDGET = 60


def sentence(tokens, search=PLAIN, since=0.0):
    return Sentence("", "", tokens, search, since, 0, Future())


def waiting(*sentences, wait_seconds=0.0):
    found = SentenceQueue(Batching(BUDGET, wait_seconds))
    found.add(list(sentences))
    return found


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.sampled_from([PLAIN, WIDE])), min_size=1, max_size=25
    )
)
def test_every_sentence_is_batched_once_and_the_oldest_first(kinds):
    all_of_them = [sentence(tokens, search) for tokens, search in kinds]
    queue = waiting(*all_of_them)
    left = list(all_of_them)
    while left:
        batch = queue.take()
        assert left[0] in batch
        assert len({one.search for one in batch}) == 1
        lengths = [one.tokens for one in batch]
        assert lengths == sorted(lengths)
        assert len(batch) == 1 or len(batch) * lengths[-1] <= BUDGET
        # No remaining sentence has a length between those of the batch.
        between = [one.tokens for one in left if one.search == batch[0].search]
        between = [n for n in between if lengths[0] < n < lengths[-1]]
        assert len(between) == sum(lengths[0] < n < lengths[-1] for n in lengths)
        for one in batch:
            left.remove(one)
        assert len(queue) == len(left)
    assert queue.seconds_to_wait(0.0) is None


def test_a_batch_has_the_sentences_nearest_in_length_to_the_oldest():
    first = sentence(10)
    queue = waiting(first, *(sentence(n) for n in (50, 9, 30, 11, 3, 10, 12)))
    assert [one.tokens for one in queue.take()] == [9, 10, 10, 11, 12]


def test_the_queue_waits_for_more_sentences_until_a_batch_is_full():
    queue = waiting(sentence(10, since=5.0), wait_seconds=2.0)
    assert queue.seconds_to_wait(5.5) == 1.5
    assert queue.seconds_to_wait(8.0) == 0.0
    queue.add([sentence(50, WIDE, since=5.1)])
    assert queue.seconds_to_wait(5.5) == 1.5
    queue.add([sentence(50, since=5.2)])
    assert queue.seconds_to_wait(5.5) == 0.0
    assert waiting().seconds_to_wait(0.0) is None


def test_lost_sentences_are_batched_first_and_singly_after_two_losses():
    queue = waiting(sentence(5, since=1.0), sentence(5, since=2.0))

    def lose(sentences):
        for one in sentences:
            one.losses += 1
        queue.add(sentences)

    lost = queue.take()
    queue.add([sentence(5, since=3.0)])
    lose(lost)
    assert [one.since for one in queue.take()] == [1.0, 2.0, 3.0]
    lose(lost)
    queue.add([sentence(5, since=4.0)])
    assert [[one.since for one in queue.take()] for _ in range(3)] == [[1.0], [2.0], [4.0]]


def test_sentences_of_cancelled_requests_are_dropped():
    left, stays = sentence(5), sentence(6)
    queue = waiting(left, stays)
    left.result.cancel()
    assert len(queue) == 1
    assert queue.seconds_to_wait(0.0) == 0.0
    assert queue.take() == [stays]
