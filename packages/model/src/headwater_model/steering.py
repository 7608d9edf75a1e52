"""Steering a run in flight: what may be changed, and how an order reaches a run that is under way.

    headwater-model steer --set optimizer.lr=0.001 --set schedule.floor=0.2 --why "loss is flat"

The command checks the order against the run's present settings (`settings.json` in its work folder, which also says
what is `fixed` in this run) and adds it to `orders.jsonl` beside; the run reads that file between two steps, makes the
change, and writes it into its flight log with the step. The same changes, known beforehand, are `pretrain.changes`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from ._contracts import manifest as artefacts
from ._contracts.config import Config, override, parse, resolved
from ._contracts.errors import UsageError, UserError
from .model_config import GATED, Activation
from .training_config import OptimizerConfig, ScheduleConfig

SETTINGS, ORDERS = "settings.json", "orders.jsonl"


class Settings(Config):
    """What of a run may change while it is under way."""

    optimizer: OptimizerConfig = Field(description="another kind keeps the weights and starts its own state")
    schedule: ScheduleConfig = Field(description="of the learning rate, over the whole run")
    batch: int = Field(ge=1, description="sequences a step")
    activation: Activation = Field(description="of the MLPs; a gated one for a gated one, a plain one for a plain one")

    def changed(self, values: dict[str, Any], fixed: Sequence[str] = ()) -> Settings:
        """These settings with some replaced.

        Args:
            values: dotted key -> value.
            fixed: keys that can't change in this run (`RunConfig.fixed`).

        Raises:
            UsageError: a key that is none or fixed, a value that is not valid, an activation of another shape.
        """
        if held := sorted(set(values) & set(fixed)):
            raise UsageError(f"settings.{held[0]} can't change in a run of this kind; leave it out")
        items = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        new = parse(Settings, override(resolved(self), items), "settings")
        if (new.activation in GATED) != (self.activation in GATED):
            fitting = [name for name in get_args(Activation) if (name in GATED) == (self.activation in GATED)]
            raise UsageError(
                f"settings.activation: {new.activation} needs other weights than {self.activation}; "
                f"it can become {' or '.join(fitting)}"
            )
        return new


class Orders:
    """The orders of one run, read as they come in."""

    def __init__(self, folder: Path):
        """Start at the file's present end: what was ordered before has been carried out, or is in the flight log."""
        self.path = folder / ORDERS
        self._read = 0

    def waiting(self) -> bool:
        """Whether there is something new; costs a stat."""
        try:
            return self.path.stat().st_size > self._read
        except FileNotFoundError:
            return False

    def take(self) -> list[dict[str, Any]]:
        """The new orders: {"set": {dotted key: value}, "why": text}."""
        with open(self.path, "rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # a line half written comes next time
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def skip(self, count: int) -> None:
        """Pass over the first `count` orders, which an earlier attempt of this run took."""
        if self.path.exists():
            lines = self.path.read_bytes().splitlines(keepends=True)
            self._read = sum(map(len, lines[:count]))


def steer(args: argparse.Namespace) -> None:
    """The steer command."""
    folder = find_run(args.work)
    try:
        published = json.loads((folder / SETTINGS).read_text())
        fixed = published.pop("fixed")
        settings = parse(Settings, published, "settings")
    except (OSError, ValueError, KeyError, AttributeError) as e:
        raise UserError(f"{folder / SETTINGS}: not readable ({e}); has the run begun?") from None
    if not args.set:
        print(artefacts.canonical_json(resolved(settings)), end="")
        return
    values = flat(override({}, args.set))
    settings.changed(values, fixed)
    with open(folder / ORDERS, "a") as file:
        file.write(json.dumps({"set": values, "why": args.why}, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(f"{folder}: will be changed after the step under way")


def find_run(work: Path) -> Path:
    """The work folder of the one run under way beneath `work`.

    Raises:
        UserError: there is none, or more than one, or it is one of local SGD.
    """
    if any(work.glob("replica-0")) or any(work.glob("pretrain/*/replica-0")):
        raise UserError(
            f"{work}: replicas of local SGD take no orders; say beforehand what to change: pretrain.changes"
        )
    here = [work] if (work / SETTINGS).is_file() else []
    found = here or sorted(path.parent for path in work.glob(f"*/*/{SETTINGS}"))
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise UserError(f"{work}: runs under way: {names}; name the folder of one with --work")
    return found[0]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
