"""Settings of notifications: names of variables, and nothing that is secret or is executed."""

import pytest
import yaml
from support.recipes import tiny_values

from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_recipe
from trainer.notify_config import DEFAULT_EVENTS, EVENTS, MAX_TARGETS, NotifyConfig
from trainer.recipe import identity_of

SECRET = "s3cr3tCANARY"
SLACK = {"kind": "slack", "url_from": "TRANSLOOM_SLACK_URL"}
PAGER = {"kind": "command", "command_from": "TRANSLOOM_PAGER"}


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values(tmp_path / "dataset")))
    return path


def test_nothing_is_sent_by_default():
    config = NotifyConfig()
    assert config.targets == config.variables == ()
    assert set(EVENTS) - set(DEFAULT_EVENTS) == {"best_score"}


def test_a_recipe_names_variables_and_stays_the_same_run(recipe_file):
    override = "tracking.notify={targets: [{kind: slack, url_from: TRANSLOOM_SLACK_URL}, "
    override += "{kind: command, command_from: TRANSLOOM_PAGER}], events: [failed, best_score]}"
    recipe = load_recipe(recipe_file, [override])
    config = recipe.tracking.notify
    assert config.variables == ("TRANSLOOM_SLACK_URL", "TRANSLOOM_PAGER")
    assert config.events == ("failed", "best_score")
    assert identity_of(recipe) == identity_of(load_recipe(recipe_file))
    assert Recipe.of(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"kind": "slack"}, "kind is slack and url_from is null: set url_from"),
        (PAGER | {"kind": "webhook"}, "url_from is null"),
        ({"kind": "command"}, "kind is command and command_from is null"),
        (SLACK | {"command_from": "TRANSLOOM_X"}, "does not read command_from: remove"),
        (PAGER | {"url_from": "TRANSLOOM_X"}, "does not read url_from: remove"),
        (SLACK | {"format": "text"}, "kind is slack, which has one format: remove format"),
        (PAGER | {"format": "html"}, "'json' or 'text'"),
        ({"kind": "mail", "url_from": "TRANSLOOM_X"}, "'webhook', 'slack' or 'command'"),
    ],
)
def test_a_target_has_the_field_of_its_kind(recipe_file, target, message):
    values = yaml.safe_load(recipe_file.read_text())
    values["tracking"]["notify"] = {"targets": [target]}
    recipe_file.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file)


def test_targets_are_few_and_named_once(recipe_file):
    many = [{"kind": "slack", "url_from": f"TRANSLOOM_{n}"} for n in range(MAX_TARGETS + 1)]
    for targets, message in (
        (many, "there are 9 targets, at most 8"),
        ([SLACK, SLACK], "repeated"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(recipe_file, [f"tracking.notify.targets={targets}"])


@pytest.mark.parametrize("name", ["PATH", "SHELL", "AWS_SECRET_ACCESS_KEY", "HTTP_PROXY", "slack"])
def test_another_variable_than_translooms_is_refused(recipe_file, name):
    """A recipe from elsewhere must not choose what this machine posts to or starts."""
    for target in ({"kind": "slack", "url_from": name}, {"kind": "command", "command_from": name}):
        with pytest.raises(RecipeError, match="begins with TRANSLOOM_, such as TRANSLOOM_SLACK_U"):
            load_recipe(recipe_file, [f"tracking.notify.targets=[{target}]"])


WRONG = [
    {"kind": "slack", "url_from": f"https://hooks.invalid/{SECRET}"},
    {"kind": "slack", "url_from": f"https://hooks.slack.com/services/{SECRET}"},
    {"kind": "slack", "url_from": SECRET},
    {"kind": "slack", "url_from": [SECRET]},
    {"kind": "slack", "url": f"https://hooks.invalid/{SECRET}"},
    {"kind": "slack", "url_from": "TRANSLOOM_X", "token": SECRET},
    {"kind": SECRET, "url_from": "TRANSLOOM_X"},
    {"kind": "command", "command_from": f"curl {SECRET}"},
    {"kind": "command", "command": ["curl", SECRET]},
    SECRET,
]


@pytest.mark.parametrize("target", WRONG)
def test_a_secret_that_is_put_into_the_recipe_is_not_shown(recipe_file, target):
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
