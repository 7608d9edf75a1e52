"""Days, energy and money of a run of known FLOPs or known speed."""

from __future__ import annotations

from dataclasses import dataclass

from .hardware import Device

PUE = 1.56
"""Power of a data centre over that of its computers: the average of Uptime Institute's survey of 2024."""
YEAR = 365.25 * 86_400


@dataclass(frozen=True)
class Cost:
    """What a run costs."""

    seconds: float
    device_hours: float
    kwh: float
    """At full load of device and host, times PUE."""
    usd: float
    """Rent."""

    @property
    def days(self) -> float:
        """Wall clock."""
        return self.seconds / 86_400


def of_seconds(seconds: float, devices: int, device: Device, pue: float = PUE) -> Cost:
    """Cost of `seconds` on `devices` devices."""
    hours = seconds * devices / 3600
    return Cost(seconds, hours, hours * (device.watts + device.host_watts) / 1000 * pue, hours * device.usd_per_hour)


def of_flops(flops: float, utilisation: float, devices: int, device: Device, pue: float = PUE) -> Cost:
    """Cost of `flops` at a share `utilisation` of the devices' 16-bit peak."""
    return of_seconds(flops / (utilisation * device.flops * devices), devices, device, pue)


def flops_of_days(days: float, devices: int, device: Device, utilisation: float) -> float:
    """What devices compute in so many days."""
    return days * 86_400 * devices * device.flops * utilisation


def flops_of_usd(usd: float, device: Device, utilisation: float) -> float:
    """What a rent buys, whatever the number of devices."""
    return usd / device.usd_per_hour * 3600 * device.flops * utilisation
