"""The table of facts and event kinds is complete, and defines each fact once."""

import subprocess
import sys
from collections import Counter
from types import UnionType
from typing import Union, get_args, get_origin

import pytest

from run_store.record.facts import BY_NAME, EVENT_KINDS, FACTS, LINES, MODELS, Fact, facts_for
from run_store.record.metrics_lines import Event, TrainLine
from run_store.record.run_metrics import RUN_METRICS
from run_store.record.run_status_model import LossForm, RunStatus

# Fields that are no facts: the kind and version of a line, and step_time, which follows from
# another field.
FORMAT_FIELDS = {"version", "kind", "step_time"}


def recorded_fields(lines=LINES):
    """Return the names of the fields of the lines and of the numbers in a run's status."""
    status = {
        name
        for name, field in RunStatus.model_fields.items()
        if field.annotation in (int, float, int | None, float | None)
    }
    return ({name for line in lines for name in line.model_fields} | status) - FORMAT_FIELDS


def problems(facts, fields):
    """Return the inconsistencies between a table of facts and the recorded fields."""
    names = Counter(fact.name for fact in facts)
    titles = Counter(fact.title for fact in facts)
    return {
        "fields without a fact": fields - names.keys(),
        "facts without a field": names.keys() - fields - RunStatus.model_fields.keys(),
        "names of two facts": {name for name, count in names.items() if count > 1},
        "titles of two facts": {title for title, count in titles.items() if count > 1},
    }


def test_fields_and_facts_match_one_to_one_and_have_distinct_titles():
    assert not any(problems(FACTS, recorded_fields()).values()), problems(FACTS, recorded_fields())


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ([fact for fact in FACTS if fact.name != "mfu"], "fields without a fact"),
        ([*FACTS, Fact("nowhere", "x")], "facts without a field"),
        ([*FACTS, Fact("mfu", "x")], "names of two facts"),
        ([*FACTS, Fact("nowhere", "MFU")], "titles of two facts"),
    ],
)
def test_an_inconsistent_table_of_facts_is_reported(facts, problem):
    assert problems(facts, recorded_fields())[problem]


def test_a_new_field_without_a_fact_is_reported():
    class Line(TrainLine):
        pressure: float | None = None

    assert problems(FACTS, recorded_fields([*LINES, Line]))["fields without a fact"] == {"pressure"}


def test_each_fact_has_the_description_of_its_field():
    assert [fact.name for fact in FACTS if not fact.description] == []
    assert BY_NAME["grad_norm"].description == "Global norm of the gradients before clipping."
    assert BY_NAME["wait_seconds"].meaning.startswith("Share of the time of recent steps. Time for")


def test_ray_accepts_the_description_of_each_metric():
    """Ray's Gauge encodes the description as ASCII."""
    assert [name for name, text in RUN_METRICS.items() if not text.isascii()] == []


def test_each_kind_of_event_is_in_the_table_with_a_distinct_title():
    assert EVENT_KINDS.keys() == {
        *(kind.model_fields["event"].default for kind in get_args(Event)),
        "skipped",
    }
    assert len({kind.title for kind in EVENT_KINDS.values()}) == len(EVENT_KINDS)


def test_facts_shown_in_charts_and_tables_have_the_required_attributes():
    assert [fact.name for fact in facts_for("chart", "first chart", "step") if not fact.thin] == []
    assert [fact.name for fact in facts_for("status", "table") if not _is_current(fact)] == []
    named = {name for fact in FACTS for name in fact.band or () if not BY_NAME[name].thin}
    assert named == set()


def _is_current(fact):
    return fact.current or fact.name in RunStatus.model_fields


def test_facts_have_whole_numbers_exactly_if_their_fields_are_integers():
    fields = {name: f for model in reversed(MODELS) for name, f in model.model_fields.items()}
    for fact in FACTS:
        kind = fields[fact.name].annotation
        union = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
        is_whole = int in {getattr(each, "__origin__", each) for each in union}
        assert (fact.format == "whole") == (is_whole or fact.name == "problems"), fact.name


def test_titles_and_units_of_losses_depend_on_the_form_of_the_loss():
    loss, form = BY_NAME["loss"], LossForm("label", smooths_labels=True)
    assert (loss.title_of(form), loss.unit_of(form)) == (
        "training loss (smoothed)",
        "nats per label",
    )
    assert BY_NAME["target_tokens_per_second"].unit_of(LossForm()) == "units/s"


def test_the_table_of_facts_does_not_import_torch():
    code = "import sys, run_store.record.facts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
