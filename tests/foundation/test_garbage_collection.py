"""`without_garbage_collection` disables the collector only while its context is open."""

import gc

import pytest

from foundation.garbage_collection import without_garbage_collection


def test_collection_is_enabled_again_and_imported_objects_are_frozen():
    assert gc.isenabled()
    with without_garbage_collection():
        assert not gc.isenabled()
        imported = [[]]
        assert any(one is imported for one in gc.get_objects())
    assert gc.isenabled()
    assert not any(one is imported for one in gc.get_objects())  # the object is frozen


def test_the_collectors_state_is_restored_after_errors_and_if_disabled():
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
