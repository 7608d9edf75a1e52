"""What looks on at a run without changing it: progress with the time left, trackers, samples, speed, the watchdog."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from tokenizers import Tokenizer

from . import generation, tracking
from ._contracts.config import resolved
from .config import ModelConfig, RunConfig
from .peak import matmul_flops_per_second
from .pretrained import TYPES
from .trainer import Trainer
from .watchdog import Watchdog

RECENT = 20
"""Steps whose median time says how fast the run is now."""


class Onlooker:
    """One rank's; the first of the run writes and prints."""

    def __init__(
        self,
        config: RunConfig,
        model: ModelConfig,
        trainer: Trainer,
        tokenizer: Tokenizer,
        steps: int,
        name: str,
        log: Callable[[str], None],
        progress: Callable[[str], None],
        rank_files: Path | None,
        first: bool,
    ):
        """
        Args:
            steps: of the run.
            name: of the run, for trackers.
            rank_files: for the watchdog's heartbeat and stacks; it keeps none if None.
            first: whether this rank is the run's first.
        """
        self.config, self.model, self.trainer, self.tokenizer, self.steps = config, model, trainer, tokenizer, steps
        self.name, self.log, self.progress, self.rank_files, self.first = name, log, progress, rank_files, first
        self.trackers: list[tracking.Tracker] = []
        self._times: list[float] = []
        self._tokens: list[int] = []
        self._spent, self._trained = 0.0, 0
        self._watchdog: Watchdog | None = None
        self._peak = 0.0
        self._at: tuple[float, int] | None = None

    @contextlib.contextmanager
    def watching(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        """A run under way; `rows` is what its curve has already."""
        mine = matmul_flops_per_second(TYPES[self.config.precision], seconds=0.2)
        peaks = torch.tensor(mine, dtype=torch.float64, device=cpu.DEVICE)
        dist.all_reduce(peaks)
        self._peak = float(peaks) * self.config.worlds
        if self.first:
            past = [(row["step"], _shown(row)) for row in rows]
            params = {"plan": resolved(self.model), "pretrain": resolved(self.config)}
            self.trackers = tracking.open_all(self.config.tracking, self.name, params, past, self.log)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # else this is the user's own process, which is not ours to end
            rank = int(os.environ["RANK"])  # the launcher's, over all replicas
            self._watchdog = Watchdog(self.config.restarts, self.rank_files, rank, self.trainer.step_count)
        try:
            yield
        finally:
            if self._watchdog:
                self._watchdog.stop()
            for tracker in self.trackers:
                tracker.close()

    def patience(self) -> contextlib.AbstractContextManager[None]:
        """A block that takes longer than a step; the speed does not count it."""
        self._at = None
        return self._watchdog.patience() if self._watchdog else contextlib.nullcontext()

    def stepped(self, step: int, tokens: int, row: Mapping[str, float]) -> None:
        """After every step: `tokens` trained on so far."""
        now = time.monotonic()
        if self._at is not None:
            took, learned = now - self._at[0], tokens - self._at[1]
            self._times, self._tokens = [*self._times, took][-RECENT:], [*self._tokens, learned][-RECENT:]
            self._spent, self._trained = self._spent + took, self._trained + learned
        self._at = (now, tokens)
        if self._watchdog:
            self._watchdog.beat(step)
        left = (self.steps - step) * statistics.median(self._times) if self._times else 0.0
        self.progress(
            f"step {step}/{self.steps}  loss {row['loss']:.3f}  lr {row['lr']:.2e}  {self.speed():,.0f} tokens/s  "
            f"{self.utilisation(self.speed()):.0%} of peak  {_clock(left)} left"
        )
        every = self.config.tracking.samples_every
        if every and step % every == 0 and self.config.parallel.ranks == self.config.parallel.data:
            self._sample(step)

    def added(self, row: Mapping[str, Any]) -> None:
        """After every row of the curve."""
        shown = _shown(row)
        if "loss" in row and self._times:
            speed = self.speed()
            shown |= {"speed/tokens_per_second": speed, "speed/utilisation": self.utilisation(speed)}
            shown["speed/memory_gb"] = _memory_gb()
        for tracker in self.trackers:
            tracker.add(row["step"], shown)

    def event(self, step: int, what: str, why: str) -> None:
        """A change of course."""
        for tracker in self.trackers:
            tracker.text(step, "events", f"{what}: {why}")

    def speed(self) -> float:
        """Tokens a second now, over all ranks."""
        seconds = statistics.median(self._times) if self._times else 0.0
        return statistics.median(self._tokens) / seconds if seconds else 0.0

    def utilisation(self, tokens_per_second: float) -> float:
        """Model FLOPs, attention counted causally, as a share of the products' measured peak."""
        return tokens_per_second * self.model.flops_per_token / self._peak if self._peak else 0.0

    def measured(self) -> dict[str, Any]:
        """Of this attempt, validation and checkpoints left out."""
        speed = self._trained / self._spent if self._spent else 0.0
        return {
            "tokens_per_second": speed,
            "utilisation": self.utilisation(speed),
            "peak_flops_per_second": self._peak,
            "memory_gb": _memory_gb(),
        }

    def _sample(self, step: int) -> None:
        """What the model goes on with, the likeliest each time."""
        if self.first and self.trackers:
            ids = [self.tokenizer.encode(prompt).ids for prompt in self.config.tracking.prompts]
            room = min(self.config.tracking.sample_tokens, self.model.context - 1)
            made = generation.generate(self.trainer.module, ids, room, temperature=0.0)
            for prompt, one in zip(self.config.tracking.prompts, made, strict=True):
                text = prompt + "|" + self.tokenizer.decode(one.tokens)
                for tracker in self.trackers:
                    tracker.text(step, "samples", text)
        self._at = None


def _shown(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of the curve under the trackers' names: train/..., heldout/..., and each source's below."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if name in ("step", "tokens"):
            continue
        if isinstance(value, Mapping):
            found |= {f"heldout_by_source/{source}": figure for source, figure in value.items()}
        elif name.startswith("heldout_"):
            found[f"heldout/{name.removeprefix('heldout_')}"] = value
        else:
            found[f"train_by_source/{name[5:]}" if name.startswith("loss/") else f"train/{name}"] = value
    return found


def _memory_gb() -> float:
    """Most memory so far: of the GPU where there is one, else of this process."""
    if cpu.HAS_CUDA:
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
