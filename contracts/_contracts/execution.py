"""How a stage is run, which changes nothing of what it makes: no part of the fingerprint or the manifest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .config import Config


class ExecutorConfig(Config):
    """Where a stage's shards are worked on."""

    kind: Literal["local", "ray", "slurm"] = Field(
        "local", description="processes of this machine, tasks of a running Ray cluster, or a Slurm job array"
    )
    memory_gb: float = Field(2.0, gt=0, description="ray, slurm: memory a worker")
    ray_address: str = Field("auto", description="ray: the cluster; auto finds the one that this machine belongs to")
    partition: str = Field("", description="slurm: partition, needed")
    time: str = Field("01:00:00", description="slurm: time limit of a worker")
    qos: str = Field("", description="slurm: quality of service; none: the cluster's default")
    sbatch: dict[str, str] = Field(default_factory=dict, description="slurm: further sbatch options, as account: mine")
    poll_seconds: float = Field(5.0, gt=0, description="slurm: how often the queue is asked")

    @model_validator(mode="after")
    def _complete(self) -> ExecutorConfig:
        if self.kind == "slurm" and not self.partition:
            raise ValueError("kind slurm needs partition")
        return self


class Fanned(Config):
    """Base of the configs of stages that work on shards."""

    workers: int = Field(2, ge=1, exclude=True, description="at a time; the result does not depend on it")
    executor: ExecutorConfig = Field(
        default_factory=ExecutorConfig, exclude=True, description="where; the result does not depend on it"
    )
