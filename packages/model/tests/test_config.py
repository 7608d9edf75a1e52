"""The shape's arithmetic is the built model's, and contradictions end before anything runs."""

import pytest
from pydantic import ValidationError

from headwater_model.config import ModelConfig


@pytest.mark.parametrize(
    "wrong", [{"hidden": 100, "heads": 3}, {"heads": 4, "kv_heads": 3}, {"hidden": 12, "heads": 4}]
)
def test_a_shape_that_cannot_be_built_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        ModelConfig(**wrong)


@pytest.mark.parametrize("tie", [False, True])
def test_the_parameter_count_is_the_built_models(tie: bool) -> None:
    from headwater_model import gpt, runtime

    config = ModelConfig(layers=2, hidden=64, heads=4, kv_heads=2, vocab=256, context=32, tie_embeddings=tie)
    runtime.initialize(seed=1)
    model = gpt.build(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters
