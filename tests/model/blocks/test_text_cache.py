import pytest
import torch

from model.blocks.text_cache import TextCache

GROUPS, WIDTH = 2, 3


def numbered(rows, length, first=0):
    """Keys and values that tell kind, row, group and place."""
    shape = (2, len(rows), GROUPS, length, WIDTH)
    kind, row, group, place, _ = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    return 1e4 * kind + 1e3 * torch.tensor(rows)[row] + 100 * group + place + first + 1.0


def test_tokens_lie_at_their_own_places_and_texts_leave():
    cache, prompts = TextCache(), [2, 5, 3]
    whole = numbered([0, 1, 2], 12)
    cache.begin(whole[:, :, :, :5].clone())
    rows, lengths = [0, 1, 2], list(prompts)
    for step in range(7):
        if step == 3:
            cache.keep(torch.tensor([0, 2]))
            rows, lengths = [0, 2], [lengths[0], lengths[2]]
        room = cache.make_room(max(lengths) + 1)
        assert room > max(lengths)
        newest = torch.stack(
            [whole[:, row, :, place] for row, place in zip(rows, lengths, strict=True)], dim=1
        )
        found = cache.append(newest.unsqueeze(3), torch.tensor(lengths))
        for kind, stored in enumerate(found):
            assert stored.shape == (len(rows), GROUPS, room, WIDTH)
            for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                assert torch.equal(
                    stored[index, :, : length + 1], whole[kind, row, :, : length + 1]
                )
        lengths = [length + 1 for length in lengths]


def test_room_grows_by_several_places():
    cache = TextCache()
    cache.begin(numbered([0], 5))
    assert cache.make_room(5) == 5
    assert [cache.make_room(places) for places in (6, 8, 9, 33)] == [8, 8, 12, 40]
    keys, _ = cache.append(numbered([0], 1), torch.tensor([5]))
    assert not keys[:, :, 6:].any()


def test_a_cache_begins_first_and_once():
    with pytest.raises(AssertionError, match="begins before"):
        TextCache().make_room(3)
    cache = TextCache()
    cache.begin(numbered([0], 5))
    with pytest.raises(AssertionError, match="once"):
        cache.begin(numbered([0], 5))
