"""The plan stage: a budget and the tokens at hand in; shape, steps, batch, learning rate and the reasons out."""

from __future__ import annotations

from math import isfinite
from typing import Any

from ._contracts import manifest as artefacts
from ._contracts.config import resolved
from ._contracts.errors import UserError
from ._contracts.stage import Run
from .config import HardwareConfig, ModelConfig, PlanConfig
from .facts import Facts, read_facts
from .planning import overtraining, ranking, repetition, scaling
from .planning.layouts import Search
from .planning.shapes import Shape
from .special_ids import SpecialIds

BATCH_EXPONENT = 0.5  # tokens a step grow with the root of the tokens: as far as small runs told, see README.md
PEAK_LR, PEAK_WIDTH = 3e-3, 256  # AdamW's best peak at this width; it falls as 1/width (muP, arXiv:2203.03466)
LOSS_LAW = scaling.BESIROGLU


def run(stage: Run) -> None:
    """Entry point of the stage."""
    config: PlanConfig = stage.config
    plan = make(config, read_facts(stage.inputs["tokens"]))
    artefacts.write_atomic(stage.out / "plan.json", artefacts.canonical_json(plan))
    model = ModelConfig(**plan["model"])
    stage.write_metrics(metrics(plan, model))
    stage.log(
        f"{model.layers} layers of {model.hidden}, {model.parameters:,} parameters, {plan['tokens']:,} tokens "
        f"in {plan['steps']:,} steps, {plan['flops']:.2e} FLOPs"
    )
    for row in list(plan.get("layouts", {}).values())[:1]:
        stage.log(
            f"{row['layout']}: {row['memory_gb']:.1f} GB a device, {row['tokens_per_second']:,.0f} tokens/s, "
            f"{row['days']:.3g} days, {row['kwh']:.3g} kWh, ${row['usd']:.3g}"
        )


def make(config: PlanConfig, facts: Facts) -> dict[str, Any]:
    """The plan as plain values: model (ModelConfig's fields), batch (sequences), steps, tokens, lr, flops, reasons.

    With `config.hardware` also layouts, the fastest first.

    Raises:
        UserError: the budget does not buy one step, pinned fields contradict each other, or no layout fits.
    """
    budget = config.budget.total(config.tokens_per_parameter)
    wanted = scaling.by_ratio(budget, config.tokens_per_parameter)
    allocation = scaling.limited_by_data(budget, wanted, facts.train_tokens, config.max_epochs)
    special = SpecialIds.COUNT if config.model.get("kind") in ("encoder", "encoder_decoder") else 0
    vocab = -(-(facts.vocabulary + special) // config.vocab_multiple) * config.vocab_multiple
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
    fit = scaling.CHINCHILLA_3.optimum(budget)
    plan = {
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
            "fit_loss_here": scaling.CHINCHILLA_3.loss(model.matrix_parameters, tokens),
            "fit_loss_best": scaling.CHINCHILLA_3.loss(*fit),
            "laws": laws(budget),
            "size": size(model.matrix_parameters, tokens),
            "repetition": repeated(model.matrix_parameters, tokens, facts.train_tokens),
        },
    }
    if config.hardware:
        plan["layouts"] = layouts(config.hardware, model, batch, tokens)
    return plan


def laws(budget: float) -> dict[str, dict[str, float]]:
    """What each scaling law would do with the budget, and the loss that one law gives to all of them."""
    optima = {name: scaling.LAWS[name].optimum(budget) for name in scaling.SHOWN}
    return {name: {**here._asdict(), "loss": LOSS_LAW.loss(*here)} for name, here in optima.items()}


def size(parameters: float, tokens: float) -> dict[str, float]:
    """The plan beside the optimal model of the same FLOPs, and beside the optimal model of the same loss.

    `break_even_tokens` is there for a model smaller than the latter: tokens served from which on it has cost less.
    """
    here = scaling.Allocation(parameters, tokens)
    best, loss = LOSS_LAW.optimum(here.flops), LOSS_LAW.loss(parameters, tokens)
    found = {
        "of_optimal": parameters / best.parameters,
        "tokens_per_parameter": tokens / parameters,
        "loss": loss,
        "loss_added": loss - LOSS_LAW.loss(*best),
    }
    same = LOSS_LAW.optimum(LOSS_LAW.flops_to_reach(loss))
    found["compute_wasted"] = max(0.0, 1 - same.flops / here.flops)
    if parameters < same.parameters and isfinite(same.parameters):
        found["break_even_tokens"] = overtraining.break_even(here, same)
    return found


def repeated(parameters: float, tokens: float, unique: float) -> dict[str, float]:
    """What repeated tokens are worth, and what the law of repetition would do with the same FLOPs."""
    best = repetition.optimum(6 * parameters * tokens, unique)
    return {
        "effective_tokens": repetition.effective(unique, tokens, repetition.TOKEN_DECAY),
        "loss": repetition.loss(parameters, tokens, unique),
        "loss_with_new_tokens": repetition.loss(parameters, tokens, tokens),
        "best_parameters": best.parameters,
        "best_epochs": best.tokens / unique,
        "best_loss": repetition.loss(*best, unique),
    }


def layouts(config: HardwareConfig, model: ModelConfig, batch: int, tokens: float) -> dict[str, dict[str, Any]]:
    """Rank ("01", "02", ...) -> layout with its predictions, fastest first.

    Raises:
        UserError: none obeys the rules or fits.
    """
    if model.kind in ("encoder_decoder", "encoder"):
        raise UserError(f"plan.hardware: layouts are predicted for decoders, not for kind {model.kind}; leave it out")
    device = config.loaded
    search = Search(
        config.devices, batch, device.node, config.micro_batches, config.interleaves, config.zero, config.recompute,
        config.max_tensor, config.max_pipeline, config.max_context, config.precision, config.attention,
    )  # fmt: skip
    found = ranking.rank(Shape.of(model), search, device, config.top)
    if not found.candidates:
        raise UserError(f"plan.hardware: {ranking.none_fits(found, device, config.devices)}")
    return {f"{i:02}": ranking.as_values(one, device, tokens) for i, one in enumerate(found.candidates, 1)}


def metrics(plan: dict[str, Any], model: ModelConfig) -> dict[str, Any]:
    """What DVC compares between plans."""
    found: dict[str, Any] = {
        "parameters": model.parameters,
        "matrix_parameters": model.matrix_parameters,
        "tokens": plan["tokens"],
        "steps": plan["steps"],
        "flops": plan["flops"],
        "epochs": plan["reasons"]["epochs"],
        "tokens_per_parameter": plan["reasons"]["size"]["tokens_per_parameter"],
        "of_optimal": plan["reasons"]["size"]["of_optimal"],
    }
    if "layouts" in plan:
        best = plan["layouts"]["01"]
        figures = ("days", "usd", "kwh", "memory_gb", "tokens_per_second", "utilisation")
        found["predicted"] = {name: best[name] for name in figures}
    return found


def shape(config: PlanConfig, vocab: int, parameters: float) -> ModelConfig:
    """The model nearest to `parameters` matrix weights among widths of whole heads, pinned fields kept.

    Heads pinned without a width: widths are multiples of eight channels a head. Key and value heads pinned alone: head
    counts are multiples of theirs. A width pinned alone: the head count that divides it into about `head_width`.
    """
    pinned = {name: value for name, value in config.model.items() if value is not None}
    candidates = []
    for step in range(1, 257):
        hidden = int(pinned.get("hidden") or step * width_step(config))
        layers = int(pinned.get("layers") or max(2, round(hidden / config.aspect)))
        fields = {"hidden": hidden, "heads": heads_for(hidden, config), "layers": layers, **pinned}
        try:
            model = ModelConfig(vocab=vocab, context=config.context, **fields)
        except ValueError as e:
            raise UserError(f"plan.model: {_first_line(e)}") from None
        candidates.append(model)
        if pinned.get("hidden") or model.matrix_parameters > parameters:
            break
    return min(candidates, key=lambda model: abs(model.matrix_parameters - parameters))


def width_step(config: PlanConfig) -> int:
    """Widths to try are multiples of this."""
    if heads := config.model.get("heads"):
        return int(heads) * 8
    return _head_width(config) * int(config.model.get("kv_heads") or 1)


def heads_for(hidden: int, config: PlanConfig) -> int:
    """Query heads for a width: of those that divide it into even widths, the nearest to `head_width` channels."""
    width = _head_width(config)
    plain = max(1, hidden // width)
    unit = int(config.model.get("kv_heads") or 1)
    if hidden % plain == 0 and hidden // plain % 2 == 0 and plain % unit == 0:
        return plain
    fitting = [n for n in range(unit, hidden // 2 + 1, unit) if hidden % (2 * n) == 0]
    return min(fitting, key=lambda n: abs(hidden / n - width), default=plain)


def _head_width(config: PlanConfig) -> int:
    return int(config.model.get("head_width") or config.head_width)


def batch_for(tokens: float, context: int) -> int:
    """Sequences a step, a power of two: about 8k tokens at 8M tokens in all, growing with the root."""
    target = 8192 * (tokens / 8e6) ** BATCH_EXPONENT / context
    power = 1
    while power * 1.5 < target:
        power *= 2
    return power


def _first_line(error: ValueError) -> str:
    lines = [line.strip().split(" [type=")[0] for line in str(error).splitlines()]
    told = next((line for line in lines if "Value error" in line or "Input" in line), lines[0])
    return told.removeprefix("Value error, ")
