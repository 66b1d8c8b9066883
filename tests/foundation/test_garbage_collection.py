"""Disable garbage collection during imports, and only then."""

import gc

import pytest

from foundation.garbage_collection import without_garbage_collection


def test_python_looks_again_afterwards_and_not_at_what_was_imported():
    assert gc.isenabled()
    with without_garbage_collection():
        assert not gc.isenabled()
        imported = [[]]
        assert any(one is imported for one in gc.get_objects())
    assert gc.isenabled()
    assert not any(one is imported for one in gc.get_objects())  # it is frozen


def test_so_it_does_where_an_import_fails_and_where_it_did_not_look_before():
    with pytest.raises(ImportError), without_garbage_collection():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
