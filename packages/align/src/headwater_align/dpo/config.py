"""Parameters of DPO."""

from __future__ import annotations

from pydantic import Field

from ..config import Optimization, TrainingConfig


class DpoConfig(TrainingConfig):
    """DPO (Rafailov et al. 2023, arXiv:2305.18290, appendix B: beta 0.1, batches of 64, lr 1e-6)."""

    optimizer: Optimization = Field(Optimization(lr=1e-6, warmup=0.1), description="AdamW and its schedule")
    beta: float = Field(0.1, gt=0, description="strength of the tie to the reference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of labels taken to be wrong (conservative DPO, Mitchell 2023)"
    )
    epochs: int = Field(1, ge=1, description="passes over the comparisons")
    batch_size: int = Field(64, ge=1, description="prompts a step, each with all of its answers")
    max_length: int = Field(0, ge=0, description="tokens of prompt and answer; longer are cut, counted; 0: the context")
