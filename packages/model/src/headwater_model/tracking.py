"""Where a run is watched: DVCLive by default, TensorBoard and W&B by a switch; all of them work without a network.

Each takes the same rows under the same names. A run that goes on is shown as one curve: what was written beyond the
checkpoint it goes on from is dropped, and written again as it is made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ._contracts.errors import UserError
from .training_config import TrackingConfig

Row = dict[str, float]


class Tracker(Protocol):
    """One place to write to."""

    def add(self, step: int, row: Row) -> None:
        """Keep the numbers of one step."""

    def text(self, step: int, name: str, text: str) -> None:
        """Keep a text, such as a sample."""

    def close(self) -> None:
        """Flush and leave."""


def open_all(
    config: TrackingConfig,
    run: str,
    params: dict[str, Any],
    past: Iterable[tuple[int, Row]],
    log: Callable[[str], None],
) -> list[Tracker]:
    """Open every tracker that the config names; one process of a run does so.

    Args:
        run: identity of the run: the same name goes on with the same curve.
        params: what to show beside the curves, nested.
        past: (step, row) of what the run has done already, in order; empty at its start.
        log: takes a line where DVCLive, the default, is not installed.

    Raises:
        UserError: TensorBoard or W&B was asked for and is not installed.
    """
    opened: list[Tracker] = []
    past = list(past)
    for name in config.to:
        module = {"dvclive": "dvclive", "tensorboard": "tensorboard", "wandb": "wandb"}[name]
        if find_spec(module) is None:
            if name != "dvclive":
                raise UserError(f"pretrain.tracking.to: {name} is not installed; pip install 'headwater-model[{name}]'")
            log("no live curves: pip install 'headwater-model[dvclive]', or pretrain.tracking.to: []")
            continue
        opened.append(_Guarded(name, partial(_KINDS[name], config, run, params, past), log))
    return opened


class _Guarded:
    """A tracker whose faults (a full disk, a repository without a commit) are told once and end it, not the run."""

    def __init__(self, name: str, make: Callable[[], Tracker], log: Callable[[str], None]):
        self._name, self._log, self._tracker = name, log, None
        self._try(lambda: setattr(self, "_tracker", make()))

    def add(self, step: int, row: Row) -> None:
        self._try(lambda: self._tracker and self._tracker.add(step, row))

    def text(self, step: int, name: str, text: str) -> None:
        self._try(lambda: self._tracker and self._tracker.text(step, name, text))

    def close(self) -> None:
        self._try(lambda: self._tracker and self._tracker.close())

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as e:
            self._tracker = None
            self._log(f"no curves in {self._name} from here on: {type(e).__name__}: {e}")


class _DVCLive:
    """A folder of TSV files, which `dvc plots` draws, and the newest numbers as metrics.json."""

    def __init__(self, config: TrackingConfig, run: str, params: dict[str, Any], past: list[tuple[int, Row]]):
        from dvclive import Live

        self.folder = Path(config.folder) / "dvclive"
        shutil.rmtree(self.folder, ignore_errors=True)  # the past is written again, without what came after it
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        # The lineage belongs to `dvc repro`: no experiment and no dvc.yaml of its own.
        self.live = Live(dir=str(self.folder), save_dvc_exp=False, dvcyaml=None)
        self.live.log_params(_flat(params))
        for step, row in past:
            self.add(step, row)

    def add(self, step: int, row: Row) -> None:
        self.live.step = step
        for name, value in row.items():
            self.live.log_metric(name, value)
        self.live.make_summary()

    def text(self, step: int, name: str, text: str) -> None:
        with open(self.folder / f"{name}.md", "a") as file:
            file.write(f"## step {step}\n\n{text}\n\n")

    def close(self) -> None:
        self.live.end()


class _TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, config: TrackingConfig, run: str, params: dict[str, Any], past: list[tuple[int, Row]]):
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(config.folder) / "tensorboard" / run
        # Events of an earlier attempt from this step on are to be ignored.
        self.writer = SummaryWriter(str(folder), purge_step=past[-1][0] + 1 if past else 0)
        if not past:
            lines = "\n".join(f"    {name}: {value}" for name, value in _flat(params).items())
            self.writer.add_text("params", lines, 0)

    def add(self, step: int, row: Row) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        self.writer.add_text(name, text, step)

    def close(self) -> None:
        self.writer.close()


class _WandB:
    """Weights & Biases; offline by default: `wandb sync` sends the folder later."""

    def __init__(self, config: TrackingConfig, run: str, params: dict[str, Any], past: list[tuple[int, Row]]):
        import wandb

        folder = Path(config.folder) / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=config.project, id=run, name=run, dir=str(folder), config=params, mode=config.wandb_mode,
            resume="allow" if config.wandb_mode == "online" else None,
            settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        # W&B refuses steps that go back, as those of a resumed run do: the step is an axis like any other.
        self.run.define_metric("*", step_metric="step")
        if config.wandb_mode == "offline":
            for step, row in past:
                self.add(step, row)

    def add(self, step: int, row: Row) -> None:
        self.run.log({"step": step, **row})

    def text(self, step: int, name: str, text: str) -> None:
        import wandb

        self.run.log({"step": step, name: wandb.Html(f"<pre>{_escape(text)}</pre>")})

    def close(self) -> None:
        self.run.finish()


_KINDS: dict[str, Callable[..., Tracker]] = {"dvclive": _DVCLive, "tensorboard": _TensorBoard, "wandb": _WandB}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
