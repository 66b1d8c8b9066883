"""Compiled layers have the same bits on any number of ranks, and only the graphs of the recipe."""

import functools
import os
import shutil
from itertools import pairwise

import pytest
import torch
from support.ranks import compiled_jobs
from support.recipes import tiny_values
from support.tasks import language_model_values, masked_values, prepared_task

from data_pipeline.tasks.causal_lm import RowsShape
from data_pipeline.tasks.translation import PairShape
from trainer.config import EngineConfig
from trainer.errors import EngineError
from trainer.process.placement import Placement
from trainer.state import numerics
from trainer.zero import compiled_layers
from trainer.zero.compiled_layers import CompiledLayers

STEPS = 2
PATIENCE = {"cpu_seconds": 900.0}  # the compiler takes most of this time
# The sizes include 1, sizes below and above those with special code in eager mode, and more scores
# than torch sums at once.
PAIRS = [PairShape(*sizes) for sizes in ((2, 3, 5), (1, 4, 4), (3, 1, 2), (3, 270, 2), (9, 7, 16))]
ROWS = [RowsShape(*sizes) for sizes in ((4, 16), (1, 9), (3, 1), (2, 2), (5, 13))]
VALUES = {"pairs": tiny_values, "texts": language_model_values, "masked": masked_values}


@pytest.fixture(scope="module")
def values_of(tmp_path_factory):
    """Return a function of a family and engine settings: the values of a recipe with both."""
    folder = tmp_path_factory.mktemp("compiled")
    made = {}

    def values(family, **engine):
        if family not in made:
            made[family] = VALUES[family](folder / family)
            prepared_task(made[family])
        own = made[family]
        return own | {"engine": own["engine"] | {"compile": "layers"} | engine}

    return values


@pytest.mark.long
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("family", "sizes", "graphs"), [("pairs", PAIRS, 4), ("texts", ROWS, 4), ("masked", ROWS, 6)]
)
def test_each_kind_of_layer_mask_and_mode_has_one_graph_for_all_sizes(
    rank_pools, values_of, family, sizes, graphs, checkpointing
):
    values = values_of(family, activation_checkpointing=checkpointing)
    (found,) = rank_pools(1).run(compiled_jobs.train, values, 0, tuple(sizes), **PATIENCE)
    assert found["graphs"] == graphs


@pytest.fixture(scope="module")
def alone(rank_pools, values_of):
    @functools.cache
    def trained(**engine):
        values = values_of("pairs", **engine)
        return rank_pools(1).run(compiled_jobs.train, values, STEPS, **PATIENCE)[0]

    return trained


@pytest.mark.long
@pytest.mark.parametrize(
    ("precision", "ranks", "stage"),
    [("fp32", 2, 1), ("fp32", 2, 2), ("fp32", 3, 0), ("bf16", 2, 2), ("bf16", 3, 1)],
)
def test_exact_numerics_with_compiled_layers_have_the_same_bits_in_stages_0_to_2(
    rank_pools, values_of, alone, precision, ranks, stage
):
    engine = {"numerics": "exact", "precision": precision}
    expected = alone(**engine)
    assert expected["losses"][0] != expected["losses"][1]
    values = values_of("pairs", zero_stage=stage, **engine)
    sizes = tuple(reversed(PAIRS))  # a rank may get the sizes in another order
    for found in rank_pools(ranks).run(compiled_jobs.train, values, STEPS, sizes, **PATIENCE):
        assert found == expected


@pytest.mark.long
def test_compiled_layers_compute_nearly_the_same_as_eager_ones(alone):
    compiled, plain = alone(), alone(compile="none")
    assert compiled["losses"] == pytest.approx(plain["losses"], rel=1e-6)
    assert (plain["code"], plain["graphs"]) == (None, 0)
    assert compiled["weights"] != plain["weights"]  # equal if nothing had been compiled


@pytest.mark.long
def test_empty_and_filled_compiler_caches_give_equal_bits(rank_pools, values_of, alone, tmp_path):
    expected = alone()
    arguments = (str(tmp_path), values_of("pairs"), STEPS)
    for _ in ("empty", "filled"):
        (found,) = rank_pools(1).run(compiled_jobs.train_with_cache, *arguments, **PATIENCE)
        assert found == expected
    assert (tmp_path / "compiled").stat().st_mode & 0o777 == 0o700


def test_stage_3_and_varlen_attention_cannot_be_compiled():
    assert EngineConfig(compile="layers", zero_stage=2)
    with pytest.raises(ValueError, match=r"zero_stage is 3.*use zero_stage 0, 1 or 2"):
        EngineConfig(compile="layers", zero_stage=3)
    with pytest.raises(ValueError, match=r"attention is varlen.*attention sdpa"):
        EngineConfig(compile="layers", attention="varlen")


def test_the_fingerprint_contains_the_digest_of_the_generated_code():
    one, two, none = (
        numerics.fingerprint(EngineConfig(numerics="exact"), Placement(generated_code=code))
        for code in ("0123", "4567", None)
    )
    assert "compiled" not in none
    for before, now in pairwise((none, one, two)):
        assert not numerics.keeps_every_bit(before, now)
    assert numerics.keeps_every_bit(one, dict(one))


class Stack(compiled_layers.LayerStack):
    def __init__(self, parameter):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.ParameterList([parameter])])


def test_a_parameter_at_an_unaligned_address_is_refused():
    layers = CompiledLayers(print, "0123", one_row=False)
    flat = torch.zeros(64)
    refused = pytest.raises(EngineError, match=r"0.*multiple of 16 bytes.*multiples of 8")
    with refused, layers.training(Stack(torch.nn.Parameter(flat[1:33]))):
        pass
    stack = Stack(torch.nn.Parameter(flat[4:36]))
    with layers.training(stack):
        assert stack.compiled_layer is print
    with pytest.raises(EngineError, match="LayerStack"):
        layers.use_in(torch.nn.Linear(2, 2))


def test_a_missing_compiler_and_a_cache_of_another_user_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that monkeypatch restores it
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    with pytest.raises(EngineError, match=r"no C\+\+ compiler .*missing.*CXX"):
        compiled_layers._require_compiler()
    monkeypatch.setenv("CXX", shutil.which("true"))
    compiled_layers._require_compiler()
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path))
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled").chmod(0o770)
    with pytest.raises(EngineError, match=r"cannot be stored.*compiled is not your folder"):
        compiled_layers._use_private_cache()
    (tmp_path / "compiled").chmod(0o700)
    compiled_layers._use_private_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
