import pytest
import torch

from model.blocks.cache import KeyValueCache, capacity_for

GROUPS, WIDTH = 2, 3


def numbered(rows, length, first=0):
    """Return keys and values that encode their kind, row, group and position."""
    shape = (2, len(rows), GROUPS, length, WIDTH)
    kind, row, group, place, _ = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    return 1e4 * kind + 1e3 * torch.tensor(rows)[row] + 100 * group + place + first + 1.0


def test_cached_tokens_keep_their_positions_when_a_text_leaves_the_batch():
    cache, prompts = KeyValueCache(), [2, 5, 3]
    whole = numbered([0, 1, 2], 12)
    cache.append(*whole[:, :, :, :5].clone())
    rows, lengths = [0, 1, 2], list(prompts)
    for step in range(7):
        if step == 3:
            cache.keep(torch.tensor([0, 2]))
            rows, lengths = [0, 2], [lengths[0], lengths[2]]
        room = cache.set_next_positions(torch.tensor(lengths), max(lengths) + 1)
        assert room > max(lengths)
        newest = torch.stack(
            [whole[:, row, :, place] for row, place in zip(rows, lengths, strict=True)], dim=1
        )
        found = cache.append(*newest.unsqueeze(3))
        for kind, stored in enumerate(found):
            assert stored.shape == (len(rows), GROUPS, room, WIDTH)
            for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                assert torch.equal(
                    stored[index, :, : length + 1], whole[kind, row, :, : length + 1]
                )
        lengths = [length + 1 for length in lengths]


def test_cache_capacity_grows_by_several_positions_at_once():
    cache = KeyValueCache()
    cache.append(*numbered([0], 5))
    place = torch.tensor([5])
    assert cache.set_next_positions(place, 5) == 5
    assert [cache.set_next_positions(place, longest) for longest in (6, 8, 9, 33)] == [8, 8, 12, 40]
    keys, _ = cache.append(*numbered([0], 1))
    assert not keys[:, :, 6:].any()


def test_a_cached_text_starts_with_exactly_one_prompt():
    with pytest.raises(AssertionError, match="begins with its prompt"):
        KeyValueCache().set_next_positions(torch.tensor([0]), 3)
    cache = KeyValueCache()
    cache.append(*numbered([0], 5))
    with pytest.raises(AssertionError, match="one prompt"):
        cache.append(*numbered([0], 5))


def test_cached_hypotheses_have_all_positions_after_a_sentence_leaves():
    cache = KeyValueCache(4)
    steps = [torch.randn(3, 2, 4, 5) for _ in range(19)]
    for number, step in enumerate(steps, 1):
        keys, values = cache.append(step, -step)
        assert keys.shape[2] == 4 * capacity_for(number)
    past = 4 * len(steps)
    assert torch.equal(keys[:, :, :past], torch.cat(steps, dim=2))
    assert not keys[:, :, past:].any()
    assert torch.equal(values, -keys)
    cache.compact_rows(torch.tensor([0]), torch.tensor([2]), 2)
    keys, values = cache.append(steps[0][:2], steps[1][:2])
    assert torch.equal(keys[:, :, :past], torch.cat(steps, dim=2)[[2, 1]])
    assert torch.equal(values[:, :, past : past + 4], steps[1][:2])
