"""Parameters of the outcome."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .._contracts.config import Config
from ..conversation import Turns


class OutcomeConfig(Config):
    """On which prompts, with how many answers, the models are compared."""

    seed: int = Field(1, ge=0, description="of the answers: a prompt's n-th answer has one seed for all models")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="of all models")
    order: list[str] = Field([], description="models from left to right; those not named follow by name")
    turns: Turns = Field("last", description="answers of a conversation to ask for, each by all that comes before it")
    prompts: int = Field(160, ge=2, description="held-out prompts, the first by id")
    samples_per_prompt: int = Field(2, ge=1, description="answers a prompt and model; they count as one in intervals")
    best_of: list[int] = Field(
        [2, 4, 8, 16], description="N of best-of-N sampling from the SFT model (Stiennon et al. 2020); []: none"
    )
    max_prompt_length: int = Field(256, ge=2, description="tokens; longer prompts are left out and counted")
    max_response_length: int = Field(128, ge=1, description="tokens an answer; without an end by then it is cut")
    kl_coef: float = Field(0.02, ge=0, description="beta of the total reward in the tables: reward - beta KL")
    batch: int = Field(64, ge=1, description="answers sampled, or scored, at a time; changes memory and rounding only")
    resamples: int = Field(2000, ge=100, description="of the bootstrap over prompts")
