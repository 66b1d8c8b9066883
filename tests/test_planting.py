"""A fault injection whose target does not exist is an error."""

import runpy
from types import SimpleNamespace

import pytest
from support.faults.moments import SITE
from support.quality.planting import plant, require

from run_store import lease

HOOKS = runpy.run_path(str(SITE / "sitecustomize.py"))["HOOKS"]


def test_every_hook_of_the_fault_injections_names_an_existing_function():
    assert len(HOOKS) > 7
    require(HOOKS)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("trainer.no_such_module", "process_group"),
        ("trainer.process.distributed", "no_such_function"),
        ("cluster.ranks.reports", "Mailbox.no_such_method"),
        ("cluster.ranks.reports", "NoSuchClass.progress"),
    ],
)
def test_a_hook_without_a_target_is_an_error(module, name):
    with pytest.raises((ImportError, AttributeError), match=r"no_such|NoSuch"):
        require({module: [name]})


def test_plant_replaces_only_an_existing_value():
    place = SimpleNamespace(SECONDS=1.0)
    plant(place, SECONDS=2.0)
    assert place.SECONDS == 2.0
    with pytest.raises(AttributeError, match=r"lease.*has no LEASE_MINUTES any more"):
        plant(lease, LEASE_MINUTES=1.0)
    assert not hasattr(lease, "LEASE_MINUTES")
