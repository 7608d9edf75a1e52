"""Accelerators: the table `hardware.yaml`, read into SI units. A figure can be replaced, its source goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from .._contracts.errors import UserError

TABLE = Path(__file__).with_name("hardware.yaml")
GIVEN = "given"
"""Source of a figure that the user replaced."""


@dataclass(frozen=True)
class Device:
    """One accelerator and its share of a node: bytes, FLOP/s, bytes/s, watts, US dollars."""

    key: str
    name: str
    memory: float
    flops: float
    """Dense 16-bit matrix products accumulated in 32 bits."""
    flops_fp32: float
    matmul_fraction: float
    """Of `flops`, what a large matrix product reaches."""
    bandwidth: float
    node_link: float
    """Each direction, between devices of one node."""
    network: float
    """Each direction, this device's share of the node's cards."""
    node: int
    watts: float
    host_watts: float
    usd_per_hour: float
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Figure of the table -> where it comes from."""

    def peak(self, precision: str) -> float:
        """FLOP/s of matrix products in `precision` ("bfloat16" or "float32")."""
        return self.flops if precision == "bfloat16" else self.flops_fp32


FIGURES = {
    "memory_gb": ("memory", 1e9),
    "tflops": ("flops", 1e12),
    "tflops_fp32": ("flops_fp32", 1e12),
    "matmul_fraction": ("matmul_fraction", 1),
    "bandwidth_gb_s": ("bandwidth", 1e9),
    "node_link_gb_s": ("node_link", 1e9),
    "network_gb_s": ("network", 1e9),
    "node": ("node", 1),
    "watts": ("watts", 1),
    "host_watts": ("host_watts", 1),
    "usd_per_hour": ("usd_per_hour", 1),
}
"""Figure of the table -> field of `Device`, and the factor between them."""


def names() -> list[str]:
    """The devices of the table."""
    return [name for name in _table() if name != "sources"]


def figures(device: str) -> dict[str, float]:
    """The figures of one device in the table's units.

    Raises:
        UserError: no such device.
    """
    return {figure: _section(device)[figure][0] for figure in FIGURES}


def load(device: str, replaced: Mapping[str, float] | None = None) -> Device:
    """A device of the table, some figures replaced (in the table's units).

    Raises:
        UserError: no such device, no such figure, or a figure that is not above zero.
    """
    section, sources = _section(device), _table()["sources"]
    values, origins = {}, {}
    for figure, (name, factor) in FIGURES.items():
        value, source = section[figure]
        values[name], origins[figure] = value * factor, sources.get(source, source)
    for figure, value in (replaced or {}).items():
        if figure not in FIGURES:
            raise UserError(f"{figure}: no figure of a device; it is one of {', '.join(FIGURES)}")
        if not value > 0:
            raise UserError(f"{figure} {value}: must be above zero")
        name, factor = FIGURES[figure]
        if value * factor != values[name]:
            values[name], origins[figure] = value * factor, GIVEN
    values["node"] = int(values["node"])
    return Device(key=device, name=section["name"], sources=origins, **values)


def _section(device: str) -> dict:
    table = _table()
    if device not in table or device == "sources":
        near = difflib.get_close_matches(device, names(), n=1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}"
        raise UserError(f"no device {device} in the table; {known}")
    return table[device]


@cache
def _table() -> dict:
    return yaml.safe_load(TABLE.read_text())
