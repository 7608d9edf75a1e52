"""Parameters of the stage `unseen`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .._contracts.config import Config


class UnseenConfig(Config):
    """Zero-shot scores on held-out clusters (FLAN, arXiv:2109.01652, section 2.4)."""

    before: str = Field("base", description="name of the model that the others are compared with")
    formats: dict[str, Literal["chat", "text"]] = Field(
        {},
        description="model -> how it is asked; none: chat where its generation ends at <|end|>, plain text otherwise",
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="parameters and activations")
    limit: int = Field(0, ge=0, description="questions of each task, the last group whole; 0: all")
    batch_tokens: int = Field(4096, ge=1, description="tokens in one forward pass")
    batch_size: int = Field(32, ge=1, description="prompts that are answered together where there are no options")
    max_new_tokens: int = Field(32, ge=1, description="tokens of an answer where there are no options")
    resamples: int = Field(2000, ge=100, description="of the paired bootstrap")
    seed: int = Field(1, ge=0, description="of the bootstrap")
