"""Parameters of the stage `adopt`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from .._contracts.config import Config


class AdoptConfig(Config):
    """Which folder, and in which type."""

    # Where the folder lies is no part of the artefact: its bytes are, and metrics.json has their hashes.
    folder: Path = Field(exclude=True, description="Hugging Face folder of a causal language model, with its tokenizer")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the weights that are written")
    vocab_multiple: int = Field(
        128, ge=1, description="where ids are added, the vocabulary is padded to this, so that tensor ranks divide it"
    )
