"""Several processes that score together: each holds the whole model and answers its share of the requests.

They are ranks of torch.distributed, started by `launch` below, or by torchrun on any number of nodes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ._contracts.errors import UserError


class Ranks:
    """This process and its peers; alone, where no launcher says otherwise."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on every rank."""
        return [value]

    def agree(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        return value


class _Distributed(Ranks):
    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, value: Any) -> list[Any]:
        values = [None] * self.size
        self._dist.all_gather_object(values, value)
        return values

    def agree(self, value: Any) -> Any:
        box = [value]
        self._dist.broadcast_object_list(box, src=0)
        return box[0]


def world_size() -> int:
    """Processes that the launcher started, by torchrun's environment; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def join() -> Ranks:
    """Meet the other ranks, if there are any."""
    return _Distributed() if world_size() > 1 else Ranks()


def launch(ranks: int, module: str, arguments: list[str], logs: Path) -> None:
    """Run `python -m module ARGUMENTS` as so many ranks on this machine and wait for them.

    Raises:
        UserError: a rank failed (its own words), or the launcher's package is not installed.
    """
    try:
        from headwater_model import launch
    except ModuleNotFoundError:
        raise UserError(
            "several ranks are started by headwater-model, which is not installed; start them yourself: "
            f"torchrun --nproc-per-node {ranks} -m headwater_eval.cli run ..."
        ) from None
    launch.run(module, arguments, ranks, logs)
