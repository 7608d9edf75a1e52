"""Local and asynchronous SGD as modes of the pretrain stage: what differs there from a synchronous run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import headwater_model.cpu as cpu  # noqa: F401

from .. import checkpoint, runtime
from ..config import PretrainConfig
from ..gpt import GPT
from ..spikes import Policy
from ..steering import Settings
from ..task import Pretraining
from ..trainer import Trainer
from .local import LocalTrainer
from .peers import Peers, join, newest_common
from .server import ParameterServer
from .worker import Worker


def start(config: PretrainConfig) -> Peers | None:
    """Set this process up, and meet the other replicas, or server and workers; None: synchronous training."""
    worlds = config.local.replicas if config.local else config.asynchronous.ranks if config.asynchronous else 0
    if worlds:
        return join(worlds, config.parallel, config.seed)
    runtime.initialize(config.parallel, config.seed)
    return None


def folder(config: PretrainConfig, work: Path, peers: Peers | None) -> Path:
    """Where this process's world keeps what it needs to go on; a server's is the run's own."""
    if peers is None or (config.asynchronous and peers.rank == 0):
        return work
    return work / f"{'replica' if config.local else 'worker'}-{peers.rank}"


def build_trainer(
    config: PretrainConfig,
    chunks: Sequence[GPT],
    settings: Settings,
    steps: int,
    peers: Peers | None,
    log: Callable[[str], None],
) -> Trainer:
    """The trainer that the loop drives; of an asynchronous run, the server.

    Args:
        steps: of the run.
    """
    if peers and config.local:
        return LocalTrainer(chunks[0], settings.optimizer, settings.schedule, peers, config.local, steps)
    if peers and config.asynchronous:
        return ParameterServer(chunks[0], settings.optimizer, settings.schedule, peers, config.asynchronous, log, steps)
    return Trainer(chunks, settings.optimizer, settings.schedule)


def work(chunks: Sequence[GPT], settings: Settings, task: Pretraining, peers: Peers) -> None:
    """A worker's run: batch N is step N of the plan, whoever computes it.

    Raises:
        UserError: the server ended.
    """
    worker = Worker(chunks[0], settings.optimizer, settings.schedule)
    size, micro = settings.batch, task.config.micro_batch
    worker.work(peers, lambda number: task.data.batch(number * size, size, micro, 0, 1), task.loss)


def newest(config: PretrainConfig, root: Path, peers: Peers | None, log: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from; of replicas, the newest that all have."""
    if peers and config.local:
        return newest_common(root, peers, log)
    return checkpoint.newest_good(root, log)


def policy(config: PretrainConfig, log: Callable[[str], None]) -> Policy | None:
    """On spikes. Neither mode can go back together, nor skip a step that others have made."""
    if config.spikes and (config.local or config.asynchronous):
        log("pretrain.spikes acts in synchronous training only: a loss that is no number ends this run")
        return None
    return Policy(config.spikes) if config.spikes else None


@contextmanager
def serving(trainer: Trainer) -> Iterator[None]:
    """A block in which workers may be at work; however it ends, they are told that it is enough."""
    try:
        yield
    finally:
        if isinstance(trainer, ParameterServer):
            trainer.stop()
