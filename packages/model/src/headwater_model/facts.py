"""What a token dataset says of itself, read without loading torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ._contracts.errors import UserError


@dataclass(frozen=True)
class Facts:
    """What tokens/metrics.json says of a token dataset."""

    vocabulary: int
    train_tokens: int
    heldout_tokens: int
    heldout_bytes: int


def read_facts(folder: Path) -> Facts:
    """Counts of a tokens artefact.

    Raises:
        UserError: no readable metrics.json, or an empty split.
    """
    path = Path(folder) / "metrics.json"
    try:
        raw = json.loads(path.read_text())
        facts = Facts(raw["vocabulary"], raw["train"]["tokens"], raw["heldout"]["tokens"], raw["heldout"]["bytes"])
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{path}: counts of tokens and bytes are missing ({e}); encode the corpus again") from None
    for split, count in (("train", facts.train_tokens), ("heldout", facts.heldout_tokens)):
        if count == 0:
            raise UserError(f"{folder}: the {split} split is empty; raise its share in the corpus mix")
    return facts
