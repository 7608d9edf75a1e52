"""What readers give: documents as read, and records that could not be."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Raw:
    """One document as read."""

    key: str
    """Names it within its source, stable from version to version where the source allows."""
    text: str
    url: str = ""
    meta: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Malformed:
    """One record that could not be read."""

    key: str
    rule: str
    detail: str
    text: str = ""


Record = Raw | Malformed
