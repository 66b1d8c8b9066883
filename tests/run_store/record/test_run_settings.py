"""The settings of a run by dotted key."""

from run_store.record.run_settings import settings_of


def test_settings_of_a_recipe_are_read_with_dotted_keys(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: tiny\ntrainer:\n  lr: 0.1\n  ema: null\n  scores: [a, {b: 2026-11-22}]\nempty: {}\n"
        "numbers: [.nan, .inf, 1]\n"
    )
    assert settings_of(recipe) == {
        "name": "tiny",
        "trainer.lr": 0.1,
        "trainer.ema": None,
        "trainer.scores": ["a", {"b": "2026-11-22"}],
        "empty": {},
        "numbers": ["nan", "inf", 1],
    }
    assert settings_of(tmp_path / "none.yaml") == {}
