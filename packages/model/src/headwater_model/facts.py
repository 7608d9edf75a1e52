"""What a token dataset says of itself, read without loading torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ._contracts.errors import UserError


@dataclass(frozen=True)
class Facts:
    """What tokens/metrics.json says of a token dataset."""

    vocabulary: int
    train_tokens: int
    heldout_tokens: int
    heldout_bytes: int
    end_of_document: int | None = None
    """Id that ends each document; None where it is not said."""
    sources: dict[str, int] = field(default_factory=dict)
    """Training tokens of each source; empty where they are not told apart."""


def read_facts(folder: Path) -> Facts:
    """Counts of a tokens artefact.

    Raises:
        UserError: no readable metrics.json, or an empty split.
    """
    path = Path(folder) / "metrics.json"
    try:
        raw = json.loads(path.read_text())
        train, heldout = raw["train"], raw["heldout"]
        sources = {name: counts["tokens"] for name, counts in train.get("by_source", {}).items()}
        end = raw.get("end_of_document_id")
        facts = Facts(raw["vocabulary"], train["tokens"], heldout["tokens"], heldout["bytes"], end, sources)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{path}: counts of tokens and bytes are missing ({e}); encode the corpus again") from None
    for split, count in (("train", facts.train_tokens), ("heldout", facts.heldout_tokens)):
        if count == 0:
            raise UserError(f"{folder}: the {split} split is empty; raise its share in the corpus mix")
    return facts
