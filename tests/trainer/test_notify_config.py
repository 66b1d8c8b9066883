"""Settings of notifications name variables, and contain neither secrets nor commands."""

import pytest
import yaml

from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_recipe
from run_store.record.notify_event import EVENTS
from trainer.notify_config import DEFAULT_EVENTS, MAX_TARGETS, NotifyConfig
from trainer.recipe import identity_of

SECRET = "s3cr3tCANARY"
PAGER = {"command_from": "TRANSLOOM_PAGER"}


def test_notifications_are_off_by_default():
    config = NotifyConfig()
    assert config.targets == config.variables == ()
    assert set(EVENTS) - set(DEFAULT_EVENTS) == {"best_score"}


def test_notification_targets_are_variables_and_do_not_change_the_run_s_identity(recipe_file):
    override = "tracking.notify={targets: [{command_from: TRANSLOOM_SLACK, format: text}, "
    override += "{command_from: TRANSLOOM_PAGER}], events: [failed, best_score]}"
    recipe = load_recipe(recipe_file, [override])
    config = recipe.tracking.notify
    assert config.variables == ("TRANSLOOM_SLACK", "TRANSLOOM_PAGER")
    assert config.events == ("failed", "best_score")
    assert identity_of(recipe) == identity_of(load_recipe(recipe_file))
    assert Recipe.of(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            {"kind": "slack", "url_from": "TRANSLOOM_X"},
            r"write \{command_from: VARIABLE, .* apprise",
        ),
        (PAGER | {"kind": "command"}, r"kind and url_from were removed.* write \{command_from: V"),
        ({"format": "text"}, "command_from is missing"),
        (PAGER | {"format": "html"}, "'json' or 'text'"),
    ],
)
def test_a_target_without_a_command_variable_is_refused(recipe_file, target, message):
    values = yaml.safe_load(recipe_file.read_text())
    values["tracking"]["notify"] = {"targets": [target]}
    recipe_file.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file)


def test_too_many_and_repeated_targets_are_refused(recipe_file):
    many = [{"command_from": f"TRANSLOOM_{n}"} for n in range(MAX_TARGETS + 1)]
    for targets, message in (
        (many, "there are 9 targets, at most 8"),
        ([PAGER, PAGER], "repeated"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(recipe_file, [f"tracking.notify.targets={targets}"])


@pytest.mark.parametrize("name", ["PATH", "SHELL", "AWS_SECRET_ACCESS_KEY", "HTTP_PROXY", "slack"])
def test_a_variable_without_the_prefix_of_transloom_is_refused(recipe_file, name):
    """A recipe from an untrusted source must not choose which command this machine runs."""
    with pytest.raises(RecipeError, match="begins with TRANSLOOM_, such as TRANSLOOM_NOTIFY, "):
        load_recipe(recipe_file, [f"tracking.notify.targets=[{{command_from: {name}}}]"])


WRONG = [
    {"kind": "slack", "url_from": f"https://hooks.invalid/{SECRET}"},
    {"command_from": f"https://hooks.slack.com/services/{SECRET}"},
    {"command_from": SECRET},
    {"command_from": [SECRET]},
    {"url": f"https://hooks.invalid/{SECRET}"},
    {"command_from": "TRANSLOOM_X", "token": SECRET},
    {"command_from": "TRANSLOOM_X", "format": SECRET},
    {"command_from": f"curl {SECRET}"},
    {"command": ["curl", SECRET]},
    SECRET,
]


@pytest.mark.parametrize("target", WRONG)
def test_a_secret_in_a_recipe_does_not_appear_in_errors(recipe_file, target):
    values = yaml.safe_load(recipe_file.read_text())
    overrides = [
        f"tracking.notify.targets=[{target}]",
        f"tracking.notify={{targets: [{target}]}}",
        f"tracking={{notify: {{targets: [{target}]}}}}",
        f"tracking.notify.targets=[{target}",
        f"tracking.notify.targets.3={target}",
        f"tracking.notify.events={target}",
        f"tracking.notify.stalled_minutes={target}",
    ]
    shown = []
    for override in overrides:
        with pytest.raises(RecipeError) as caught:
            load_recipe(recipe_file, [override, "trainer.max_stepz=1"])
        shown.append(str(caught.value))
    values["tracking"]["notify"] = {"targets": [target]}
    recipe_file.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file)
    shown.append(str(caught.value))
    assert all("tracking" in text for text in shown)
    assert [text for text in shown if SECRET in text] == []
