"""Width transfer: a step moves activations as far in a wide model as in a narrow one; the base model is untouched."""

from __future__ import annotations

import math

import pytest
import torch

from headwater_model import pretrain, width_transfer
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig, OptimizerConfig, PretrainConfig, ScheduleConfig
from headwater_model.gpt import GPT, build
from headwater_model.optimizer_state import slots
from headwater_model.trainer import Trainer, next_token_loss
from headwater_model.training_config import WidthTransferConfig

BASE, WIDEST = 32, 256
RATES = {"adamw": 0.003, "lion": 0.001, "adafactor": 0.03, "muon": 0.01, "sgd": 0.1}
TRANSFER = WidthTransferConfig(base=BASE)
LAYER, LOGITS = "decoder.layers.1", "output_layer"


def shape(width: int, tie: bool = False) -> ModelConfig:
    return ModelConfig(
        layers=2, hidden=width, heads=width // 16, vocab=64, context=32, ffn=3 * width, tie_embeddings=tie
    )


def config(kind: str, transfer: bool, lr: float | None = None) -> OptimizerConfig:
    asked = TRANSFER if transfer else None
    return OptimizerConfig(kind=kind, lr=lr or RATES[kind], weight_decay=0.1, clip=0.0, width_transfer=asked)


def model(width: int, transfer: bool, tie: bool = False) -> GPT:
    made = build(shape(width, tie), seed=3)
    if transfer:
        width_transfer.initialise(made, shape(width, tie), TRANSFER)
    return made


@torch.no_grad()
def activations(of: GPT, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def keep(name: str):
        return lambda module, inputs, output: found.__setitem__(name, output[0].clone())

    hooks = [m.register_forward_hook(keep(name)) for name, m in of.named_modules() if name in (LAYER, LOGITS)]
    of(tokens)
    for hook in hooks:
        hook.remove()
    return found


def moved(width: int, kind: str, transfer: bool, tie: bool) -> dict[str, float]:
    """Root mean square change of activations by four steps on one row of eight tokens."""
    one = Trainer(model(width, transfer, tie), config(kind, transfer), ScheduleConfig(kind="constant"))
    ids = torch.randint(64, (1, 9), generator=torch.Generator().manual_seed(0))
    before = activations(one.module, ids[:, :-1])
    for _ in range(4):
        one.step([{"tokens": ids[:, :-1], "labels": ids[:, 1:]}], next_token_loss)
    after = activations(one.module, ids[:, :-1])
    return {name: (after[name] - before[name]).square().mean().sqrt().item() for name in before}


def slopes(kind: str, transfer: bool, tie: bool = False) -> dict[str, float]:
    """Exponent with which the changes grow with the width."""
    narrow, wide = (moved(width, kind, transfer, tie) for width in (BASE, WIDEST))
    return {name: math.log(wide[name] / narrow[name], WIDEST / BASE) for name in narrow}


@pytest.mark.parametrize(("kind", "tie"), [(kind, False) for kind in RATES] + [("adamw", True), ("muon", True)])
def test_activations_move_as_far_at_every_width_where_one_rate_for_all_moves_them_ever_farther(kind, tie):
    """The coordinate check of arXiv:2203.03466, appendix D.1. Measured: logits -0.28 to -0.03 with, 0.31 to 0.83
    without; they fall a little, as the part that is random at the start does (like 1/sqrt(width))."""
    flat, plain = slopes(kind, True, tie), slopes(kind, False, tie)
    assert abs(flat[LAYER]) < 0.2, flat
    assert -0.4 < flat[LOGITS] < 0.1, flat
    assert plain[LOGITS] > 0.25 and plain[LOGITS] > flat[LOGITS] + 0.3, plain


@pytest.mark.parametrize("kind", RATES)
def test_the_base_model_trains_as_without(kind):
    ids = torch.randint(64, (1, 9), generator=torch.Generator().manual_seed(0))
    ends = []
    for transfer in (True, False):
        one = Trainer(model(BASE, transfer), config(kind, transfer), ScheduleConfig(kind="constant"))
        for _ in range(2):
            one.step([{"tokens": ids[:, :-1], "labels": ids[:, 1:]}], next_token_loss)
        ends.append([weight.detach().clone() for weight in one.module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("tie", [False, True])
def test_a_wide_models_logits_start_smaller_by_its_width_whether_or_not_it_shares_its_table(tie):
    tokens = torch.arange(8)[None]
    plain, scaled = (model(128, transfer, tie)(tokens) for transfer in (False, True))
    torch.testing.assert_close(scaled, plain * BASE / 128)


@pytest.mark.parametrize("kind", RATES)
def test_every_weight_gets_the_rate_of_its_role_and_loses_the_same_share_a_step(kind):
    ratio = 128 / BASE
    one = Trainer(model(128, True), config(kind, True, lr=0.01), ScheduleConfig(kind="constant"))
    one.step([{"tokens": torch.arange(8)[None], "labels": torch.arange(8)[None]}], next_token_loss)
    held = slots(one.optimizer)
    for name, weight in one.module.named_parameters():
        slot = held[id(weight)]
        (group,) = [g for g in slot.shell.param_groups if any(p is slot.master for p in g["params"])]
        hidden = weight.dim() == 2 and not any(part in name for part in ("embedding", "output_layer"))
        output = "output_layer" in name
        expected = {
            "adamw": 1 / ratio if hidden or output else 1,
            "lion": 1 / ratio if hidden or output else 1,
            "adafactor": ratio**-0.5 if hidden else 1,
            "muon": ratio**-0.5 if hidden else 1 / ratio if output else 1,
            "sgd": 1 / ratio if output else 1 if hidden else ratio,
        }[kind]
        assert group["lr"] == pytest.approx(0.01 * expected), name
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.01 * 0.1 if weight.dim() == 2 else 0), name


def test_it_is_switched_on_in_the_middle_of_a_run():
    one = Trainer(model(64, False), config("adamw", False), ScheduleConfig(kind="constant"))
    ids = torch.arange(8)[None]
    one.step([{"tokens": ids, "labels": ids}], next_token_loss)
    told = one.change_optimizer(config("adamw", True))
    assert told == "optimizer adamw to adamw: masters kept; adamw: moments kept"
    assert {group["lr_mult"] for group in one.optimizer.param_groups} == {1.0, 0.5}
    assert one.step([{"tokens": ids, "labels": ids}], next_token_loss)["loss"] < 4.2


@pytest.mark.parametrize(
    ("fields", "told"), [({"init": "normal"}, "needs init fan_in"), ({"kind": "encoder"}, "for decoders")]
)
def test_models_whose_scaling_is_another_are_refused_in_a_line(fields, told):
    with pytest.raises(UserError, match=told):
        width_transfer.initialise(model(BASE, False), shape(BASE).model_copy(update=fields), TRANSFER)


def test_pretraining_takes_the_plans_rate_for_the_hidden_matrices_of_its_own_width():
    run = PretrainConfig(optimizer={"width_transfer": {"base": BASE, "output": 2}})
    wide = shape(128)
    settings = pretrain.first_settings(run, {"lr": 0.01, "batch": 1, "model": wide.model_dump()}, steps=10)
    one = Trainer(pretrain._chunks(run, wide), settings.optimizer, settings.schedule)
    rates = {settings.optimizer.lr * group["lr_mult"] for group in one.optimizer.param_groups}
    assert rates == {0.01, 0.04}
    assert one.module.output_layer.weight.std().item() == pytest.approx(2 * 0.02 / 4, rel=0.05)
