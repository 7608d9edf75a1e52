"""ChatterBot: YAML {"conversations": [[turn, turn, ...], ...]}, whose talks come one at a time as {"turns"}."""

from __future__ import annotations

from typing import Any

from ..conversation import BadRow, Message, check
from .format import Format, Row


def alternating(turns: Any) -> list[Message]:
    """Bare turns, the user's first; a last word of the user that nobody answers is left out.

    Raises:
        BadRow: fewer than two turns.
    """
    if not isinstance(turns, list) or len(turns) < 2:
        raise BadRow("fewer than two turns")
    whole = turns[: len(turns) // 2 * 2]
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(whole)]


def read(row: Row) -> list[dict | BadRow]:
    return [{"messages": check(alternating(row["turns"]))}]


FORMAT = Format("chatterbot", "demonstrations", lambda row: "turns" in row, read)
