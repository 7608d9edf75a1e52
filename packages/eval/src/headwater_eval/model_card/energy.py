"""Energy of a run: measured wall time times assumed power."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from .._contracts.errors import UserError
from ..report.inputs import RunRecord
from .config import EnergyConfig


class Energy(NamedTuple):
    """An estimate and what it rests on."""

    kwh: dict[str, float]
    """Stage -> kWh."""
    watts: float
    """Of all devices and their hosts."""
    power: str
    """Where the watts come from, in words."""
    grams: float | None
    """CO2-equivalent."""

    @property
    def total(self) -> float:
        """kWh of all stages."""
        return sum(self.kwh.values())


def estimate(
    records: tuple[RunRecord, ...], environment: Mapping[str, Any] | None, config: EnergyConfig
) -> Energy | str:
    """kWh = hours x watts x PUE / 1000, stage by stage, or the reason why there is no estimate.

    Hours are the stages' measured wall times; the power is that of the whole machine at full load, as in
    `headwater-model plan` (Strubell et al. 2019, arXiv:1906.02243, section 2, sampled the power instead). Both err
    upwards: a stage seldom keeps its machine busy, and stages that ran at the same time are counted one after the
    other.

    Args:
        environment: environment.json of the checkpoint.
    """
    if not records:
        return "no run records were given, so no times are known"
    if config.watts is not None:
        each, power = config.watts, f"{config.watts:g} W a device, as given"
    else:
        device = config.device or ("cpu" if environment is not None and environment.get("gpus") == [] else None)
        if device is None:
            return "the hardware is not known; name energy.device or energy.watts"
        found = _table(device)
        if isinstance(found, str):
            return found
        each, power = found
    watts = each * config.devices
    kwh: dict[str, float] = {}
    for record in records:
        kwh[record.stage] = kwh.get(record.stage, 0.0) + record.wall_s / 3600 * watts / 1000 * config.pue
    grams = sum(kwh.values()) * config.grams_per_kwh if config.grams_per_kwh else None
    return Energy(kwh, watts, power, grams)


def _table(device: str) -> tuple[float, str] | str:
    """Watts of a device of headwater-model's table and its host, with their sources."""
    if not find_spec("headwater_model"):
        return "headwater-model, whose table has the power of devices, is not installed; give energy.watts"
    hardware = import_module("headwater_model.planning.hardware")
    try:
        found = hardware.load(device)
    except Exception as e:
        if not hasattr(e, "exit_code"):  # its own error class, which this package does not share
            raise
        raise UserError(f"energy.device: {e}") from None
    sources = {found.sources.get(name, "table") for name in ("watts", "host_watts")}
    told = f"{found.name}, {found.watts:g} W and {found.host_watts:g} W of its host ({', '.join(sorted(sources))})"
    return found.watts + found.host_watts, told
