"""The plan stage: a compute budget and the tokens at hand in; shape, steps, batch and learning rate out."""

from __future__ import annotations

from typing import Any

from . import scaling
from ._contracts import manifest as artefacts
from ._contracts.config import resolved
from ._contracts.errors import UserError
from ._contracts.stage import Run
from .config import ModelConfig, PlanConfig
from .facts import Facts, read_facts

BATCH_EXPONENT = 0.5  # tokens a step grow with the root of the tokens: as far as small runs told, see README.md
PEAK_LR, PEAK_WIDTH = 3e-3, 256  # AdamW's best peak at this width; it falls as 1/width (muP, arXiv:2203.03466)


def run(stage: Run) -> None:
    """Entry point of the stage."""
    config: PlanConfig = stage.config
    facts = read_facts(stage.inputs["tokens"])
    plan = make(config, facts)
    artefacts.write_atomic(stage.out / "plan.json", artefacts.canonical_json(plan))
    model = ModelConfig(**plan["model"])
    stage.write_metrics(
        {
            "parameters": model.parameters,
            "matrix_parameters": model.matrix_parameters,
            "tokens": plan["tokens"],
            "steps": plan["steps"],
            "flops": plan["flops"],
            "epochs": plan["reasons"]["epochs"],
        }
    )
    stage.log(
        f"{model.layers} layers of {model.hidden}, {model.parameters:,} parameters, {plan['tokens']:,} tokens "
        f"in {plan['steps']:,} steps, {plan['flops']:.2e} FLOPs"
    )


def make(config: PlanConfig, facts: Facts) -> dict[str, Any]:
    """The plan as plain values: model (ModelConfig's fields), batch (sequences), steps, tokens, lr, flops, reasons.

    Raises:
        UserError: the budget does not buy one step, or pinned fields contradict each other.
    """
    budget = config.budget.total
    wanted = scaling.by_ratio(budget, config.tokens_per_parameter)
    allocation = scaling.limited_by_data(budget, wanted, facts.train_tokens, config.max_epochs)
    vocab = -(-facts.vocabulary // config.vocab_multiple) * config.vocab_multiple
    model = shape(config, vocab, allocation.parameters)
    affordable = budget / model.flops_per_token
    tokens = min(affordable, facts.train_tokens * config.max_epochs)
    batch = config.batch or batch_for(tokens, config.context)
    steps = int(tokens // (batch * config.context))
    if steps < 1:
        raise UserError(
            f"the budget of {budget:.3g} FLOPs does not buy one step of {batch} sequences of {config.context} tokens; "
            "raise plan.budget, or lower plan.batch or plan.context"
        )
    tokens = steps * batch * config.context
    fit = scaling.by_fit(budget)
    return {
        "model": resolved(model),
        "batch": batch,
        "steps": steps,
        "tokens": tokens,
        "flops": tokens * model.flops_per_token,
        "lr": config.lr or PEAK_LR * PEAK_WIDTH / model.hidden,
        "reasons": {
            "budget_flops": budget,
            "tokens_at_hand": facts.train_tokens,
            "epochs": tokens / facts.train_tokens,
            "ratio_parameters": wanted.parameters,
            "ratio_tokens": wanted.tokens,
            "limited_by_data": wanted.tokens > facts.train_tokens * config.max_epochs,
            "target_parameters": allocation.parameters,
            "matrix_parameters": model.matrix_parameters,
            "flops_per_token": model.flops_per_token,
            "attention_share": 1 - 6 * model.matrix_parameters / model.flops_per_token,
            "fit_parameters": fit.parameters,
            "fit_tokens": fit.tokens,
            "fit_loss_here": scaling.fitted_loss(model.matrix_parameters, tokens),
            "fit_loss_best": scaling.fitted_loss(fit.parameters, fit.tokens),
        },
    }


def shape(config: PlanConfig, vocab: int, parameters: float) -> ModelConfig:
    """The model nearest to `parameters` matrix weights among widths of whole heads, pinned fields kept."""
    pinned = dict(config.model)
    candidates = []
    for heads in range(1, 257):
        hidden = int(pinned.get("hidden") or heads * config.head_width)
        layers = int(pinned.get("layers") or max(2, round(hidden / config.aspect)))
        fields = {"hidden": hidden, "heads": max(1, hidden // config.head_width), "layers": layers, **pinned}
        try:
            model = ModelConfig(vocab=vocab, context=config.context, **fields)
        except ValueError as e:
            raise UserError(f"plan.model: {_first_line(e)}") from None
        candidates.append(model)
        if pinned.get("hidden") or model.matrix_parameters > parameters:
            break
    return min(candidates, key=lambda model: abs(model.matrix_parameters - parameters))


def batch_for(tokens: float, context: int) -> int:
    """Sequences a step, a power of two: about 8k tokens at 8M tokens in all, growing with the root."""
    target = 8192 * (tokens / 8e6) ** BATCH_EXPONENT / context
    power = 1
    while power * 1.5 < target:
        power *= 2
    return power


def _first_line(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "Value error" in line or "Input" in line), lines[0])
