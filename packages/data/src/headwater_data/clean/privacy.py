"""Private data to placeholders, by the steps that are on: what counts as private, the contract's `privacy.py` says."""

from __future__ import annotations

from .._contracts import privacy
from .._contracts.privacy import KINDS as MASKS
from .._contracts.privacy import Span, mask
from ..config.clean import Steps

__all__ = ["MASKS", "Span", "find_private", "mask"]


def find_private(text: str, steps: Steps, region: str = "US") -> list[Span]:
    """Private data of the kinds that `steps` mask; see `_contracts.privacy.find_private`."""
    return privacy.find_private(text, [kind for kind in MASKS if getattr(steps, kind)], region)
