"""Presets for GPUs: what their alignment sections say fits the model, the machine and each other.

Nothing of them runs here; what is held is that no rank starts on a layout that cannot be, or waits for rows.
"""

from __future__ import annotations

import pytest

from headwater_align.cli import STAGES
from headwater_align.engine import check_layout, settings_of
from headwater_data.cli import STAGES as DATA
from headwater_model import presets
from headwater_model._contracts.config import load_section, parse, read_yaml
from headwater_model.config import ModelConfig, PlanConfig
from headwater_model.plan import shape
from headwater_model.training_config import ParallelConfig
from tests.conftest import ROOT

TRAINING = ("sft", "reward", "dpo", "ppo")
PUBLISHED = ("opt-1.3b", "opt-2.7b", "opt-6.7b", "llama2-7b", "llama3-8b")
"""Bases of the sizes that hh-rlhf is for."""
ANSWERS = 2
"""A comparison has two at the least: its micro-batches count answers, its batches prompts."""


def config_of(scale: str, name: str):
    stage = next(stage for stage in STAGES if stage.name == name)
    return parse(stage.config, load_section(ROOT / "params.yaml", name, scale), name)


def planned(scale: str) -> ModelConfig:
    plan = parse(PlanConfig, load_section(ROOT / "params.yaml", "plan", scale), "plan")
    return shape(plan, 50304, 0)  # tokenizer.vocab_size of both, a multiple of plan.vocab_multiple


def published(name: str) -> ModelConfig:
    base = ModelConfig(**{"vocab": 32000, "context": 2048, **presets.fields(name)})
    return base.model_copy(update={"vocab": -(-(base.vocab + 6) // 128) * 128})  # with the chat format's tokens


CASES = [("gpu8", planned("gpu8")), ("nodes64", planned("nodes64")), *(("hh-rlhf", published(n)) for n in PUBLISHED)]
NAMES = ["gpu8", "nodes64", *PUBLISHED]


@pytest.mark.parametrize(("scale", "model"), CASES, ids=NAMES)
@pytest.mark.parametrize("name", TRAINING)
def test_the_layout_divides_the_model_and_lengths_fit_its_context(name: str, scale: str, model: ModelConfig) -> None:
    config = config_of(scale, name)
    check_layout(settings_of(config, name), model, name)
    longest = config.max_prompt_length + config.max_response_length if name == "ppo" else config.max_length
    assert longest <= model.context
    if name == "ppo":
        assert config.ptx_length <= model.context
        asked = config_of(scale, "outcome"), config_of(scale, "sample")
        assert all(c.max_prompt_length + c.max_response_length <= model.context for c in asked)


@pytest.mark.parametrize("scale", ["gpu8", "nodes64", "hh-rlhf"])
@pytest.mark.parametrize("name", TRAINING)
def test_every_data_rank_has_the_same_whole_micro_batches_and_a_pipeline_is_kept_busy(name: str, scale: str) -> None:
    config = config_of(scale, name)
    layout = ParallelConfig(**config.parallel)
    rows = config.batch_size
    if name == "ppo":
        rows //= config.minibatches
        assert config.batch_size % (config.sample_batch * layout.data) == 0, "a rank would sample a part of a batch"
        assert round(config.ptx_ratio * rows) % layout.data == 0, "pre-training rows would not divide"
    assert rows % layout.data == 0, f"{rows} rows for {layout.data} data ranks"
    own = rows // layout.data * (ANSWERS if name in ("reward", "dpo") else 1)
    assert own % config.micro_batch == 0, f"{own} rows a data rank in micro-batches of {config.micro_batch}"
    assert own // config.micro_batch >= 2 * layout.pipeline or layout.pipeline == 1, "more bubble than work"


@pytest.mark.parametrize(("scale", "machines"), [("gpu8", 1), ("hh-rlhf", 1), ("nodes64", 64)])
@pytest.mark.parametrize("name", TRAINING)
def test_ranks_are_whole_machines_of_eight_and_several_are_started_by_srun(
    name: str, scale: str, machines: int
) -> None:
    config = config_of(scale, name)
    ranks = ParallelConfig(**config.parallel).ranks
    assert ranks % 8 == 0 and ranks <= 8 * machines
    launch = settings_of(config, name).launch
    assert (launch.kind, launch.per_node) == (("srun", 8) if machines > 1 else ("here", None))


def test_every_section_of_the_preset_for_hh_rlhf_is_a_stage_s_and_accepted() -> None:
    stages = {stage.section or stage.name: stage for stage in (*DATA, *STAGES)}
    for section in read_yaml(ROOT / "configs/hh-rlhf.yaml"):
        parse(stages[section].config, load_section(ROOT / "params.yaml", section, "hh-rlhf"), section)
