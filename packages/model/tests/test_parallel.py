"""The parts of parallel training that need one process: what is refused, how batches grow, how sequences are cut."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core import jit
from megatron.core.distributed import param_and_grad_buffer
from megatron.core.models.common.embeddings import rope_utils
from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator
from megatron.core.optimizer import optimizer as megatron_optimizer
from megatron.core.tensor_parallel import mappings, random
from megatron.core.transformer import torch_norm
from pydantic import ValidationError

from headwater_model import context_parallel, runtime
from headwater_model._contracts.errors import UserError
from headwater_model.attention import CoreAttention, segment_mask
from headwater_model.config import BatchRampConfig, ModelConfig, OptimizerConfig, ParallelConfig, ScheduleConfig
from headwater_model.gpt import build
from headwater_model.megatron_config import megatron_config
from headwater_model.trainer import Trainer, next_token_loss


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"sequence": True}, "sequence needs tensor above 1"),
        ({"chunks": 2}, "chunks 2 needs pipeline above 1"),
        ({"overlap_param_gather": True, "overlap_grad_reduce": True}, "overlap_param_gather needs zero 1"),
        ({"overlap_param_gather": True, "zero": 1}, "overlap_grad_reduce"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused_when_it_is_made(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ParallelConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tensor": 4}, r"kv_heads 2 is no multiple of parallel\.tensor 4"),
        ({"tensor": 2, "sequence": True, "context": 5}, r"context 36 is no multiple of parallel\.context x tensor 10"),
        ({"pipeline": 4}, r"layers 6 is no multiple of parallel\.pipeline 4"),
        ({"pipeline": 2, "chunks": 2}, r"layers 6 is no multiple of parallel\.pipeline x chunks 4"),
        ({"context": 4}, r"context 36 is no multiple of 2 x parallel\.context 8"),
    ],
)
def test_a_layout_that_does_not_divide_the_model_is_refused_in_one_line(fields: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ParallelConfig(**fields).check(ModelConfig(layers=6, hidden=32, heads=4, kv_heads=2, vocab=64, context=36))


def test_a_model_that_looks_ahead_is_not_cut_into_contexts() -> None:
    with pytest.raises(ValueError, match=r"kind prefix needs parallel\.context 1"):
        ParallelConfig(context=2).check(ModelConfig(kind="prefix"))


def test_interleaving_takes_micro_batches_in_groups_of_the_pipelines_ranks() -> None:
    ParallelConfig(pipeline=4, chunks=2).check_batch(8)
    ParallelConfig(pipeline=4).check_batch(6)
    with pytest.raises(ValueError, match=r"6 micro-batches a step are no multiple of parallel\.pipeline 4"):
        ParallelConfig(pipeline=4, chunks=2).check_batch(6)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 9), st.integers(1, 5000), st.data())
def test_a_batch_grows_as_megatrons(start: int, increment: int, times: int, samples: int, data: st.DataObject) -> None:
    final = start + increment * times
    ramp = BatchRampConfig(start=start, increment=increment, samples=samples)
    ramp.check(final, 1)
    theirs = RampupBatchsizeNumMicroBatchesCalculator(final, 1, 1, False, 0, start, increment, samples)
    for consumed in (0, samples, samples + 1, data.draw(st.integers(0, 2 * samples))):
        theirs.update(consumed, consistency_check=False)
        assert ramp.batch_size(consumed, final) == theirs.get_current_global_batch_size()


def test_a_ramp_that_leads_elsewhere_or_cannot_be_cut_is_refused() -> None:
    ramp = BatchRampConfig(start=8, increment=8, samples=100)
    ramp.check(32, 8)
    with pytest.raises(ValueError, match="no batch of 30"):
        ramp.check(30, 2)
    with pytest.raises(ValueError, match="8 sequences are no multiple of the 16"):
        ramp.check(32, 16)


@given(st.integers(1, 6), st.integers(1, 5))
def test_context_ranks_hold_every_position_once_and_see_as_many_keys(ranks: int, piece: int) -> None:
    size = 2 * ranks * piece
    held = [context_parallel.places(size, rank, ranks) for rank in range(ranks)]
    assert torch.cat(held).sort().values.tolist() == list(range(size))
    assert len({int((positions + 1).sum()) for positions in held}) == 1


def test_a_cut_batch_is_the_whole_ones_rows_with_masks_and_positions_of_its_segments() -> None:
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 0, 0]])
    batch = {"tokens": torch.arange(16).view(2, 8), "attention_mask": segments, "weight": torch.ones(2)}
    places = context_parallel.places(8, 1, 2)
    assert places.tolist() == [2, 3, 4, 5]
    cut = context_parallel.cut(batch, ("attention_mask", "position_ids"), 1, 2)
    assert cut["tokens"].tolist() == [[2, 3, 4, 5], [10, 11, 12, 13]]
    assert torch.equal(cut["attention_mask"], segment_mask(segments)[:, :, places])
    assert cut["position_ids"].tolist() == [[2, 0, 1, 2], [2, 3, 4, 5]]
    assert cut["weight"] is batch["weight"]
    masked = {**batch, "attention_mask": segment_mask(segments)}
    by_mask = context_parallel.cut(masked, ("attention_mask", "position_ids"), 1, 2)
    assert all(torch.equal(by_mask[name], cut[name]) for name in ("attention_mask", "position_ids"))


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match=r"10 positions are no multiple of 2 x parallel\.context 2"):
        context_parallel.cut({"tokens": torch.zeros(1, 10)}, (), 0, 2)
    with pytest.raises(UserError, match=r"'prefix' speaks of whole sequences; set parallel\.context 1"):
        context_parallel.cut({"tokens": torch.zeros(1, 8), "prefix": torch.ones(1)}, ("prefix",), 0, 2)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_late_queries_see_what_they_see_in_the_whole_and_send_the_same_gradient(kv_heads: int) -> None:
    """The piece of attention that a context rank computes, on both paths: key heads as many as query heads or fewer."""
    config = megatron_config(ModelConfig(hidden=32, heads=4, kv_heads=kv_heads), torch.float32, ParallelConfig())
    core = CoreAttention(config, 1)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(200, 2, 4, 8, generator=generator).requires_grad_()
    key, value = (torch.randn(200, 2, kv_heads, 8, generator=generator).requires_grad_() for _ in range(2))
    upstream = torch.randn(50, 2, 32, generator=generator)
    mask = segment_mask((torch.rand(2, 200, generator=generator) < 0.05).cumsum(1))
    for whole_mask, part_mask in ((None, None), (mask, mask[:, :, 150:])):
        whole = core(query, key, value, whole_mask)[150:]
        part = core(query[150:], key, value, part_mask)
        assert torch.allclose(whole, part, atol=1e-6)
        for a, b in zip(
            torch.autograd.grad(whole, (query, key, value), upstream),
            torch.autograd.grad(part, (query, key, value), upstream),
            strict=True,
        ):
            assert torch.allclose(a, b, atol=1e-5)


def test_a_refused_update_leaves_weights_and_moments_and_the_step_counts(shape: ModelConfig) -> None:
    one = Trainer(build(shape, seed=3), OptimizerConfig(lr=0.01), ScheduleConfig(kind="constant", steps=8))
    ids = torch.randint(shape.vocab, (2, 17), generator=torch.Generator().manual_seed(0))
    batch = [{"tokens": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}]
    first = one.step(batch, next_token_loss)
    weights = [weight.detach().clone() for weight in one.module.parameters()]
    refused = one.step(batch, next_token_loss, accept=lambda row: row["grad_norm"] < 0)
    assert all(torch.equal(a, b) for a, b in zip(weights, one.module.parameters(), strict=True))
    assert one.step_count == 2 and refused["loss"] < first["loss"]
    inner = one.optimizer.chained_optimizers[0].optimizer
    assert {float(state["step"]) for state in inner.state.values()} == {1.0}
    assert one.step(batch, next_token_loss)["loss"] == refused["loss"]


@pytest.fixture
def srun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of the third of four tasks, and a stand-in for Slurm's scontrol."""
    for name in [n for n in os.environ if n.startswith(("SLURM_", "MASTER_")) or n in ("RANK", "WORLD_SIZE")]:
        monkeypatch.delenv(name)
    tool = tmp_path / "scontrol"
    tool.write_text('#!/bin/sh\n[ "$3" = "node[07-08]" ] && printf "node07\\nnode08\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = {"PROCID": 2, "NTASKS": 4, "LOCALID": 0, "JOB_ID": 77, "STEP_ID": 1, "JOB_NODELIST": "node[07-08]"}
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    return monkeypatch


def test_sruns_variables_say_what_torchruns_would(srun: pytest.MonkeyPatch) -> None:
    runtime.read_slurm()
    assert [os.environ[n] for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")] == ["2", "4", "0", "node07"]
    assert 20_000 <= int(os.environ["MASTER_PORT"]) < 30_000


def test_torchruns_variables_win_over_sruns(srun: pytest.MonkeyPatch) -> None:
    srun.setenv("RANK", "0")
    runtime.read_slurm()
    assert os.environ["RANK"] == "0" and "MASTER_ADDR" not in os.environ


def test_hosts_that_cannot_be_read_are_one_line(srun: pytest.MonkeyPatch) -> None:
    srun.setenv("SLURM_JOB_NODELIST", "node[")
    with pytest.raises(UserError, match="set MASTER_ADDR to the first"):
        runtime.read_slurm()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (jit, "jit_fuser = torch.compile"),
        (mappings, "torch.cuda.current_device()"),
        (megatron_optimizer, "device='cuda'"),
        (megatron_optimizer, "'torch.cuda.FloatTensor'"),
        (random, "torch.cuda.get_rng_state()"),
        (random, "torch.cuda.manual_seed("),
        (random, "torch.cuda.default_generators"),
        (rope_utils, "pin_memory=True"),
        (torch_norm, "assert not config.sequence_parallel"),
        (param_and_grad_buffer, "torch.cuda.current_device()"),
    ],
)
def test_each_adaptation_to_a_cpu_still_meets_what_it_is_for(module: ModuleType, words: str) -> None:
    """Where this fails, a newer megatron-core has made a line of cpu.py or norm.py needless: take it out."""
    assert words in inspect.getsource(module)
