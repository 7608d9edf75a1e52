"""Chapters from artefacts that have a page of their own: leakage, and the paired comparison of results.

Their tables stand in the report too, made by the code that made that page; the page itself is laid beside.
"""

from __future__ import annotations

from pathlib import Path

from .._contracts.manifest import write_atomic
from ..compare import page as comparison
from ..leakage import page as leaked
from ..leakage.scores import KIND
from .document import Details, Section, Text
from .inputs import Lineage
from .scores import rows_of
from .training import TOKENIZERS_PAGE

PAGES = {
    "comparison": ("page.html", TOKENIZERS_PAGE),
    "leakage": ("index.html", "leakage.html"),
    "paired": ("index.html", "paired.html"),
}
"""Artefact -> its page, and the page's name beside the report."""


def copy(lineage: Lineage, out: Path) -> None:
    """The artefacts' own pages, as far as there are any, beside the report."""
    for name, (page, beside) in PAGES.items():
        artefact = lineage[name]
        if artefact is not None and (artefact.folder / page).is_file():
            write_atomic(out / beside, (artefact.folder / page).read_bytes())


def leakage(lineage: Lineage) -> Section | None:
    """What the model gives away of its training text."""
    chapters = leaked.sections(rows_of(lineage.metrics("leakage"), KIND))
    if not chapters:
        return None
    told = f"What the base model gives away of the text that it was trained on. As a page: {_beside('leakage')}."
    return Section("leakage", "Leakage", [Text(told), *(block for chapter in chapters for block in chapter.blocks)])


def paired(lineage: Lineage) -> Section | None:
    """Results two by two on the same items: differences, flips, tests."""
    artefact = lineage["paired"]
    found = artefact.json("comparison.json") if artefact else None
    if not found or not found.get("pairs"):
        return None
    told = f"The models two by two on the items that both answered. With pictures: {_beside('paired')}."
    section = Section("paired", "Models on the same items", [Text(told), Text(comparison.METHOD)])
    for pair in found["pairs"]:
        section.blocks.append(Details(f"{pair['before']} to {pair['after']}", comparison.pair_blocks(pair, found)))
    return section


def _beside(name: str) -> str:
    return f"{PAGES[name][1]}, beside this page"
