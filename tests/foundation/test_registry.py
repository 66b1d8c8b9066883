"""Registries: a name has one entry, which may be imported when it is first used."""

import sys

import pytest

from foundation.errors import ExtensionError
from foundation.registry import Registry, imported


@pytest.fixture
def shapes():
    registry = Registry("shape", "figure.shape")
    registry.register("round", "a circle's")
    return registry


def test_registered_entries_keep_their_order():
    registry = Registry[object]("thing", "things.type")
    first, second = object(), object()
    registry.register("b", first)
    registry.register("a", second)
    assert (registry["b"], registry["a"]) == (first, second)
    assert list(registry) == ["b", "a"]
    assert "c" not in registry


def test_an_entry_given_as_a_path_is_imported_when_it_is_used():
    sys.modules.pop("this_is_not_imported", None)
    registry = Registry[object]("module", "modules.type")
    registry.register("base64", "base64:b64encode")
    registry.register("missing", "this_is_not_imported:anything")
    assert registry["base64"](b"a") == b"YQ=="
    with pytest.raises(ExtensionError, match=r"this_is_not_imported:anything .* No module named"):
        registry["missing"]


@pytest.mark.parametrize("place", ["base64:nothing_of_this_name", "base64", "nowhere_at_all:x"])
def test_an_entry_whose_path_cannot_be_imported_is_reported(place):
    with pytest.raises(ExtensionError, match=rf"{place} is registered but cannot be imported"):
        imported(place)


def test_registering_a_different_entry_with_a_known_name_is_refused(shapes):
    shapes.register("round", "a circle's")  # an equal entry, as by a second import
    with pytest.raises(ExtensionError, match=r"shape 'round' .* \"a circle's\" and as 'a ball'"):
        shapes.register("round", "a ball")


def test_an_unknown_name_is_reported_with_the_known_ones(shapes):
    shapes.register("flat", "a plane's")
    with pytest.raises(
        ExtensionError, match=r"figure\.shape is 'rond', .* Choose one of round, flat"
    ):
        shapes["rond"]
