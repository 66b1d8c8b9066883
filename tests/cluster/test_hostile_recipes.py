"""Recipes that were made to do harm or that contradict themselves are refused with the line."""

import os
from pathlib import Path

import pytest
from support.quality import memory
from support.recipes import tiny_values, write_yaml

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from foundation.strict_yaml import MAX_BYTES, MAX_VALUES, YamlError, parse_yaml

LAUGHS = "a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "a key twice": (b"seed: 1\nname: x\nseed: 2", r"the key 'seed' appears in line 1 .* line 3"),
    "an inner key twice": (
        b"model:\n  width: 1\n  heads: 2\n  'width': 3",
        r"'width' appears in line 2 and again in line 4: remove one",
    ),
    "two keys that are the same number": (b"x:\n  1: a\n  0x1: b", "line 2 and again in line 3"),
    "a key twice in braces": (b"x: {a: 1, a: 2}", "line 1 and again in line 1"),
    "billion laughs": (LAUGHS.encode(), f"line 6: more than {MAX_VALUES:,} values"),
    "billion laughs by <<": (
        b"a: &a [" + b"1," * 1_000 + b"]\nb: {<<: [" + b"*a," * 110 + b"]}",
        f"line 2: more than {MAX_VALUES:,} values",
    ),
    "a list within itself": (b"a:\n - &a [1, *a]", r"line 2: \*a refers to itself"),
    "an alias of nothing": (b"a: *b", "undefined alias 'b'"),
    "deep lists": (b"a: " + b"[" * 200 + b"]" * 200, "line 1: nested deeper than 32"),
    "very deep lists": (b"a: 1\nb: " + b"[" * 100_000, "line 2: more than 500 brackets are open"),
    "deep tables": (b"\n".join(b" " * n + b"a:" for n in range(40)), "line 33: nested deeper"),
    "deep dashes": (b"- " * 5_000 + b"1", "line 1: nested deeper"),
    "a list as key": (b"name: x\n? [1, 2]\n: 3", "line 2: a key is sequence, expected a name"),
    "5,000 digits": (b"seed: " + b"9" * 5_000, "4300 digits"),
    "a day that is none": (b"seed: 2026-02-31", "a value in it is invalid: day is out of range"),
    "an object": (b"a: !!python/object/apply:os.abort []", "not YAML.*line 1"),
    "a NUL": (b"name: a\0b", "not YAML.*special characters"),
    "latin-1": ("name: x\n# für alle".encode("latin-1"), r"line 2: the byte 0xfc is not UTF-8"),
    "UTF-16": ("name: x".encode("utf-16"), r"line 1: the byte 0xff is not UTF-8"),
    "too long": (b"name: x\n" + b"#" * MAX_BYTES, "2,000,008 bytes, expected at most 2,000,000"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_hostile_texts_are_refused_with_the_line_and_little_memory(
    tmp_path: Path, text: bytes, message: str
) -> None:
    file = tmp_path / "hostile.yaml"
    file.write_bytes(text)
    with memory.at_most(20_000_000), pytest.raises(RecipeError, match=rf"(?s){message}") as caught:
        load_recipe(file)
    assert str(caught.value).startswith(str(file))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", [f"[{'{' * 999}", "{a: 1, a: 2}", "[" * 600, "1" * 5_000])
def test_hostile_values_of_overrides_are_refused(tmp_path: Path, text: str) -> None:
    file = write_yaml(tmp_path / "tiny.yaml", tiny_values(tmp_path / "dataset"))
    with pytest.raises(RecipeError, match=r"Override 'model=") as caught:
        load_recipe(file, [f"model={text}"])
    assert len(str(caught.value)) < 1000


HUGE = 10**25


@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "data.pairs_per_block",
        "tokenizer.vocabulary_size",
        "batching.window_shards",
        "trainer.max_steps",
        "trainer.optimizer.weight_decay",
        "checkpoints.keep_every_steps",
        "cluster.ranks",
    ],
)
def test_numbers_too_large_for_any_count_are_refused_with_the_key(tmp_path: Path, key: str) -> None:
    file = write_yaml(tmp_path / "tiny.yaml", tiny_values(tmp_path / "dataset"))
    if key == "trainer.optimizer.weight_decay":  # a weight decay may be 10^25
        load_recipe(file, [f"{key}={HUGE}"])
        return
    with pytest.raises(RecipeError, match=rf"{key}: it has a number of 84 bits, .*smaller"):
        load_recipe(file, [f"{key}={HUGE}"])


def test_a_field_with_a_special_bound_names_that_bound(tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "tiny.yaml", tiny_values(tmp_path / "dataset"))
    with pytest.raises(RecipeError, match=rf"model.width is {HUGE}: .* equal to 1000000"):
        load_recipe(file, [f"model.width={HUGE}"])


def test_special_files_are_refused_without_opening_them(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    link = tmp_path / "link.yaml"
    link.symlink_to("/dev/zero")
    for path, kind in ((fifo, "a FIFO"), (link, "a character device"), (tmp_path, "a folder")):
        with pytest.raises(RecipeError, match=rf"{path} cannot be read: it is {kind}, expected"):
            load_recipe(path)


def test_anchors_and_merged_tables_are_read() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\nd: [*a, *a]"
    assert parse_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 3, "y": 4},
        "d": [{"x": 1, "y": 2}] * 2,
    }


def test_many_values_are_read_but_no_more_than_the_limit() -> None:
    assert len(parse_yaml("- x\n" * 1000)) == 1000
    with pytest.raises(YamlError, match="more than"):
        parse_yaml("a: &a [" + "1, " * 999 + "1]\nb: [" + "*a, " * 110 + "]")
