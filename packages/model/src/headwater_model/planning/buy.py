"""Build or buy: an API, an existing model fine-tuned, or a model of one's own, costed for a stated use.

The three options are those of "Current best practices for training LLMs from scratch" (Li, Parker and Tenuto, Weights
& Biases, 2023). Everything here is arithmetic on stated assumptions: each is a field with its default, unit and source,
and the answer is only as good as they are. Not counted: what quality is worth, delay, and the value of owning a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from pydantic import Field

from .._contracts.config import Config
from .._contracts.errors import UserError
from . import hardware
from .scaling import BESIROGLU

HOURS_A_MONTH = 730.5


def _assumed(default: Any, description: str, source: str = "assumption", **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"source": source}, **limits)


class UseConfig(Config):
    """What the model is for."""

    tokens_in: float = _assumed(1e9, "tokens read a month", "the use", gt=0)
    tokens_out: float = _assumed(2e8, "tokens written a month", "the use", gt=0)
    months: float = _assumed(24, "months of use", "the use", gt=0)
    parameters: float = _assumed(8e9, "size of an open model that is good enough, fine-tuned", "the use", gt=0)
    loss: float | None = _assumed(
        None, "or the loss that is good enough, by the law of arXiv:2404.10102; sizes the own model", "the use", gt=0
    )
    sensitive: bool = _assumed(False, "data that must not leave the house: no API, own machines only", "the use")


class ApiConfig(Config):
    """A commercial API."""

    usd_in: float = _assumed(
        1.0, "USD a million tokens read", "mid tier, June 2026, basicsof.ai/article/cost-latency-deployment", ge=0
    )
    usd_out: float = _assumed(5.0, "USD a million tokens written", "as usd_in", ge=0)
    yearly_change: float = _assumed(0.0, "change of the price a year, as -0.3 for a fall by 30%", gt=-1)
    person_months: float = _assumed(1.0, "work to build on it", ge=0)
    person_months_a_year: float = _assumed(1.0, "work to keep up with its changes", ge=0)


class DeviceConfig(Config):
    """What models run on."""

    name: str = _assumed("h100-sxm", "device of hardware.yaml", "the use")
    usd_per_hour: float | None = _assumed(None, "rent; the table's if null", "hardware.yaml", gt=0)
    usd_per_hour_sensitive: float = _assumed(
        1.5, "times the rent, on machines that may hold sensitive data (own or dedicated)", ge=1
    )


class ServingConfig(Config):
    """A model of one's own, served."""

    batch: float = _assumed(32, "sequences decoded together", gt=0)
    load: float = _assumed(0.3, "average over peak load: devices wait the rest of the time", gt=0, le=1)
    utilisation: float = _assumed(0.4, "of the peak, reading prompts", gt=0, le=1)
    bandwidth: float = _assumed(0.6, "of the memory's bandwidth, writing tokens", gt=0, le=1)
    replicas: int = _assumed(2, "copies at least, so that one may fail", ge=1)
    person_months: float = _assumed(2.0, "work to set it up", ge=0)
    person_months_a_year: float = _assumed(4.0, "work to run it", ge=0)


class TuneConfig(Config):
    """Fine-tuning of an existing model."""

    tokens: float = _assumed(1e8, "tokens of examples, all epochs", gt=0)
    runs: float = _assumed(10, "trainings until one is kept", ge=1)
    a_year: float = _assumed(2, "times a year that it is done again", ge=0)
    utilisation: float = _assumed(0.3, "of the peak", gt=0, le=1)
    usd_data: float = _assumed(30_000, "US dollars for examples and their review", ge=0)
    person_months: float = _assumed(4.0, "work", ge=0)


class ScratchConfig(Config):
    """Pre-training; fine-tuning and serving come on top."""

    tokens_per_parameter: float = _assumed(
        200, "tokens a parameter: open models are trained far beyond the 20 of arXiv:2203.15556", gt=0
    )
    utilisation: float = _assumed(
        0.4, "of the peak, by the model's FLOPs", "published: 35% to 55%, see docs/planning.md", gt=0, le=1
    )
    goodput: float = _assumed(0.85, "share of the time that is progress: restarts, loss spikes, evaluation", gt=0, le=1)
    experiments: float = _assumed(1.0, "smaller runs before it, as a share of its compute", ge=0)
    usd_data: float = _assumed(500_000, "US dollars for collecting, licensing and cleaning text", ge=0)
    person_months: float = _assumed(60.0, "work", ge=0)


class BuyConfig(Config):
    """A use and every assumption about what it costs."""

    use: UseConfig = Field(default_factory=UseConfig, description="the use")
    api: ApiConfig = Field(default_factory=ApiConfig, description="API")
    device: DeviceConfig = Field(default_factory=DeviceConfig, description="devices")
    serving: ServingConfig = Field(default_factory=ServingConfig, description="serving")
    tune: TuneConfig = Field(default_factory=TuneConfig, description="fine-tuning")
    scratch: ScratchConfig = Field(default_factory=ScratchConfig, description="training from scratch")
    usd_person_month: float = _assumed(18_000, "US dollars a person and month, all costs", ge=0)


@dataclass(frozen=True)
class Option:
    """One way to get the use served; US dollars over all its months."""

    name: str
    once: float
    monthly: float
    """Average over the months."""
    parts: dict[str, float]
    """What the sum is made of."""
    excluded: str = ""
    """Why it is out of the question; "" if it is not."""

    def total(self, months: float) -> float:
        """US dollars after so many months."""
        return self.once + self.monthly * months


def options(config: BuyConfig) -> list[Option]:
    """The three options for the use, in the order API, fine-tune, scratch."""
    return [api(config), tune(config), scratch(config)]


def verdict(config: BuyConfig) -> Option:
    """The cheapest option that is not excluded."""
    months = config.use.months
    return min((one for one in options(config) if not one.excluded), key=lambda one: one.total(months))


def api(config: BuyConfig) -> Option:
    """Pay by the token."""
    use, prices = config.use, config.api
    years = use.months / 12
    change = 1 + prices.yearly_change
    average = sum(change ** ((month + 0.5) / 12) for month in range(max(1, round(use.months))))
    average /= max(1, round(use.months))
    tokens = (use.tokens_in * prices.usd_in + use.tokens_out * prices.usd_out) / 1e6 * average * use.months
    work = config.usd_person_month * (prices.person_months + prices.person_months_a_year * years)
    once = config.usd_person_month * prices.person_months
    reason = "the data must not leave the house" if use.sensitive else ""
    return _option("API", use.months, once, {"tokens": tokens, "work": work}, reason)


def tune(config: BuyConfig) -> Option:
    """Fine-tune an open model and serve it."""
    parts, once = _tuned(config, config.use.parameters)
    serving, setting_up = _served(config, config.use.parameters)
    return _option("fine-tune", config.use.months, once + setting_up, _added(parts, serving))


def scratch(config: BuyConfig) -> Option:
    """Train, fine-tune and serve a model of one's own."""
    plan, (parameters, tokens) = config.scratch, own_model(config)
    flops = 6 * parameters * tokens * (1 + plan.experiments) / plan.goodput
    compute = _usd(flops, config, plan.utilisation)
    first = {"compute": compute, "data": plan.usd_data, "work": plan.person_months * config.usd_person_month}
    tuned, once = _tuned(config, parameters)
    serving, setting_up = _served(config, parameters)
    once += sum(first.values()) + setting_up
    return _option("from scratch", config.use.months, once, _added(_added(first, tuned), serving))


def own_model(config: BuyConfig) -> tuple[float, float]:
    """Parameters and tokens of the own model.

    From `use.loss` the compute-optimal ones by arXiv:2404.10102, else `use.parameters` with
    `scratch.tokens_per_parameter`.

    Raises:
        UserError: a loss that no model has.
    """
    if config.use.loss is None:
        return config.use.parameters, config.use.parameters * config.scratch.tokens_per_parameter
    if config.use.loss <= BESIROGLU.E:
        raise UserError(f"buy.use.loss {config.use.loss:g}: no model reaches {BESIROGLU.E:g} nats a token; raise it")
    best = BESIROGLU.optimum(BESIROGLU.flops_to_reach(config.use.loss))
    return best.parameters, best.tokens


def devices_needed(config: BuyConfig, parameters: float) -> tuple[float, int]:
    """Devices for the peak load, and how many one copy takes.

    Reading is bound by arithmetic, 2 N FLOPs a token; writing by memory, the weights once a step for `batch` tokens
    (or by arithmetic, if that is longer). A copy in bfloat16 leaves a third of the memory for keys and values.
    """
    use, plan, device = config.use, config.serving, _device(config)
    copy = ceil(2 * parameters / (device.memory * 2 / 3))
    arithmetic = 2 * parameters / (device.flops * plan.utilisation)
    writing = max(arithmetic, 2 * parameters / (device.bandwidth * plan.bandwidth) / plan.batch)
    busy = (use.tokens_in * arithmetic + use.tokens_out * writing) / (HOURS_A_MONTH * 3600)
    return max(busy / plan.load, copy * plan.replicas), copy


def break_even(config: BuyConfig, name: str, low: float = 1e-4, high: float = 1e4) -> float | None:
    """How many times the use's tokens make option `name` cost the same as the API; None if nothing in between does."""
    index = {"fine-tune": 1, "from scratch": 2}[name]

    def difference(times: float) -> float:
        scaled = replace(config, "use.tokens_in", config.use.tokens_in * times)
        scaled = replace(scaled, "use.tokens_out", config.use.tokens_out * times)
        both = options(scaled)
        return both[index].total(config.use.months) - both[0].total(config.use.months)

    return _crossing(difference, low, high)


def flips(config: BuyConfig, reach: float = 10.0) -> list[tuple[str, float, float, str]]:
    """Assumptions that change the verdict if they are wrong by at most `reach`, the nearest first.

    Returns:
        (name, value assumed, value at which the verdict changes, the new verdict).
    """
    now = verdict(config).name
    found = []
    for name, value in numbers(config):
        best: tuple[float, str] | None = None
        for direction in (1, -1):
            edge = value * reach**direction
            other = _verdict_at(config, name, edge)
            if other is None or other == now:
                continue
            at = _crossing(partial(_differs, config, name, now), *sorted((value, edge)))
            if at is not None and (best is None or _apart(at, value) < _apart(best[0], value)):
                best = (at, other)
        if best is not None:
            found.append((name, value, *best))
    return sorted(found, key=lambda row: _apart(row[2], row[1]))


def if_sensitive_otherwise(config: BuyConfig) -> str:
    """The verdict if `use.sensitive` were the other way round."""
    use = config.use.model_copy(update={"sensitive": not config.use.sensitive})
    return verdict(config.model_copy(update={"use": use})).name


def numbers(config: Config, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number above zero of a config by its dotted name."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            yield prefix + name, float(value)


def replace(config: BuyConfig, name: str, value: float) -> BuyConfig:
    """The config with one number replaced.

    Raises:
        pydantic.ValidationError: a value outside the field's limits.
    """
    values = config.model_dump()
    *path, last = name.split(".")
    node = values
    for part in path:
        node = node[part]
    node[last] = round(value) if isinstance(node[last], int) else value
    return BuyConfig.model_validate(values)


def _verdict_at(config: BuyConfig, name: str, value: float) -> str | None:
    try:
        return verdict(replace(config, name, value)).name
    except (ValueError, UserError):  # outside the field's limits, or of what any model reaches
        return None


def _differs(config: BuyConfig, name: str, now: str, value: float) -> float:
    return -1.0 if _verdict_at(config, name, value) == now else 1.0


def _crossing(difference: Callable[[float], float], low: float, high: float) -> float | None:
    """Where `difference` changes sign between two positive numbers, by bisection in logarithms."""
    at_low, at_high = difference(low) > 0, difference(high) > 0
    if at_low == at_high:
        return None
    while high / low > 1.0001:
        middle = (low * high) ** 0.5
        if (difference(middle) > 0) == at_low:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _apart(one: float, other: float) -> float:
    return max(one / other, other / one)


def _option(name: str, months: float, once: float, parts: dict[str, float], excluded: str = "") -> Option:
    return Option(name, once, (sum(parts.values()) - once) / months, parts, excluded)


def _added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {part: one.get(part, 0.0) + other.get(part, 0.0) for part in {**one, **other}}


def _tuned(config: BuyConfig, parameters: float) -> tuple[dict[str, float], float]:
    """Parts of fine-tuning over all months, and what of them comes before the first."""
    plan = config.tune
    once = _usd(6 * parameters * plan.tokens * plan.runs, config, plan.utilisation)
    again = once * plan.a_year * config.use.months / 12
    work = plan.person_months * config.usd_person_month
    return {"compute": once + again, "data": plan.usd_data, "work": work}, once + plan.usd_data + work


def _served(config: BuyConfig, parameters: float) -> tuple[dict[str, float], float]:
    plan, months = config.serving, config.use.months
    devices, _ = devices_needed(config, parameters)
    work = config.usd_person_month * (plan.person_months + plan.person_months_a_year * months / 12)
    rent = devices * HOURS_A_MONTH * months * rent_per_hour(config)
    return {"serving": rent, "work": work}, config.usd_person_month * plan.person_months


def rent_per_hour(config: BuyConfig) -> float:
    """US dollars for one device and hour, dearer where the data are sensitive."""
    return (config.device.usd_per_hour or _device(config).usd_per_hour) * (
        config.device.usd_per_hour_sensitive if config.use.sensitive else 1
    )


def _usd(flops: float, config: BuyConfig, utilisation: float) -> float:
    return flops / (_device(config).flops * utilisation) / 3600 * rent_per_hour(config)


def _device(config: BuyConfig) -> hardware.Device:
    return hardware.load(config.device.name)
