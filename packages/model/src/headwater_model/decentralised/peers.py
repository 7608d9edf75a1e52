"""Several worlds in one launch, and the group in which they meet.

To Megatron a replica is the whole world, whatever its layout inside; so models, trainers and checkpoints know nothing
of the other replicas. These meet seldom, over slow links, and one of them may be lost: their group is gloo over host
memory, with GPUs too, and apart from every group of Megatron's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from torch import Tensor

from .. import checkpoint, runtime
from .._contracts.errors import UserError
from ..config import ParallelConfig

SILENCE_MINUTES = 60
"""After which a peer counts as lost. The end of a process is noticed at once; this is for one that hangs, and must be
longer than replicas train alone."""


class PeerLost(UserError):
    """Another process of the group ended, or was silent for too long."""


class Peers:
    """This process and its like in the other replicas: all hold the same part of the model."""

    def __init__(self, store: dist.Store, rank: int, size: int, minutes: float = SILENCE_MINUTES):
        """Meet the others; collective.

        Args:
            store: that all of this group, and no other group, use.
            rank: which of the `size` this one is.
            minutes: of silence after which a peer counts as lost.
        """
        self.store, self.rank, self.size = store, rank, size
        with _told():
            self._group = dist.ProcessGroupGloo(store, rank, size, timedelta(minutes=minutes))

    def mean(self, values: Tensor) -> None:
        """Put the mean over all peers, the same bits on each, in place of `values` (float, on the host)."""
        with _told():
            self._group.allreduce([values]).wait()
        values /= self.size

    def broadcast(self, values: Tensor) -> None:
        """Put the first peer's `values` in place of everyone's (on the host)."""
        with _told():
            self._group.broadcast(values, 0).wait()

    def largest(self, value: int) -> int:
        """The largest of all peers' values."""
        found = torch.tensor(value)
        with _told():
            self._group.allreduce([found], dist.ReduceOp.MAX).wait()
        return int(found)

    def any(self, flag: bool) -> bool:
        """Whether it is true of any peer."""
        return bool(self.largest(int(flag)))

    def average(self, row: dict[str, float]) -> dict[str, float]:
        """Means of all peers' rows, each weighted by what it is the mean of: the row's "count", and for loss/NAME
        the share/NAME of it (`source_loss`). "count" itself is summed."""
        names = [name for name in row if name != "count"]
        shares = [row[f"share/{name[5:]}"] if name.startswith("loss/") else 1.0 for name in names]
        weights = [row["count"] * share for share in shares]
        sums = [row[name] * weight for name, weight in zip(names, weights, strict=True)]
        table = torch.tensor([[*sums, row["count"]], [*weights, 1.0]], dtype=torch.float64)
        with _told():
            self._group.allreduce([table]).wait()
        (*sums, count), (*weights, _) = table.tolist()
        means = [total / weight if weight else 0.0 for total, weight in zip(sums, weights, strict=True)]
        return {**dict(zip(names, means, strict=True)), "count": count}

    def send(self, values: Tensor, to: int) -> None:
        """Hand `values` (on the host) to one peer.

        Raises:
            PeerLost: it ended, or was silent for too long.
        """
        with _told():
            self._group.send([values], to, 0).wait()

    def post(self, values: Tensor, to: int) -> dist.Work:
        """`send` without waiting: `values` must stay as they are, and the answered work be kept, until they arrived."""
        with _told():
            return self._group.send([values], to, 0)

    def receive(self, values: Tensor, source: int) -> None:
        """Wait for what `source` sends next; of the shape and type of `values`.

        Raises:
            PeerLost: it ended, or was silent for too long.
        """
        with _told():
            self._group.recv([values], source, 0).wait()


def join(
    replicas: int, parallel: ParallelConfig | None = None, seed: int = 1234, store: dist.Store | None = None
) -> Peers:
    """Split the processes of a launch into replicas, set Megatron up in this process's own, and meet the others.

    Processes of one replica have adjoining ranks. The environment is torchrun's, or `launch.run`'s.

    Args:
        replicas: worlds to make, each of the ranks of `parallel`.
        parallel: layout inside a replica; one rank if None.
        seed: see `runtime.initialize`.
        store: of the launch, where it was joined before.

    Raises:
        UserError: the number of processes is not replicas x ranks.
    """
    parallel = parallel or ParallelConfig()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world != replicas * parallel.ranks:
        needed = replicas * parallel.ranks
        raise UserError(f"{replicas} replicas of {parallel.ranks} ranks need {needed} processes, but {world} run")
    if store is None:
        waiting = timedelta(minutes=runtime.TIMEOUT_MINUTES)
        store = next(dist.rendezvous("env://", timeout=waiting))[0] if world > 1 else dist.HashStore()
    replica, place = divmod(rank, parallel.ranks)
    cpu.keep_pages()
    if cpu.HAS_CUDA:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(
        "nccl" if cpu.HAS_CUDA else "gloo",
        store=dist.PrefixStore(f"replica-{replica}", store),
        rank=place,
        world_size=parallel.ranks,
        timeout=timedelta(minutes=runtime.TIMEOUT_MINUTES),
    )
    runtime.initialize(parallel, seed)
    peers = Peers(dist.PrefixStore(f"place-{place}", store), replica, replicas)
    peers.store = store
    return peers


def newest_common(root: Path, peers: Peers, log: Callable[[str], None]) -> Path | None:
    """This replica's checkpoint of the newest step of which every replica has an undamaged one; None: there is none.

    Collective over all processes. Checkpoints of later steps are named in the log and removed.

    Args:
        root: of this replica's checkpoints, as `checkpoint.save_step` makes them.
    """
    box = [-1]
    if dist.get_rank() == 0:
        faults = {folder: checkpoint.damage(folder) for folder in checkpoint.steps(root)}
        good = {int(folder.name.split("-")[1]): folder for folder, fault in faults.items() if fault is None}
        limit = 1 << 62
        while True:
            mine = max((step for step in good if step <= limit), default=-1)
            limit = -peers.largest(-mine)
            if limit == peers.largest(mine):
                break
        box = [limit]
        for folder, fault in faults.items():
            if int(folder.name.split("-")[1]) > limit:
                log(f"{folder.name} is left out ({fault or 'not every replica has it whole'})")
                shutil.rmtree(folder)
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return root / f"step-{box[0]:08d}" if box[0] >= 0 else None


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as e:
        reason = re.sub(r"^\[[^]]*\] *", "", " ".join(str(e).split())).split(". ")[0]
        raise PeerLost(f"another process has ended or fell silent ({reason}); start the run again to go on") from None
