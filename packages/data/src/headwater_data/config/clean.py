"""clean's config: every edit of the text, switchable, also by source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .._contracts.config import Config
from .._contracts.execution import Fanned
from .._contracts.privacy import KINDS
from .sources import Category


class Steps(Config):
    """What is done to a text, in this order."""

    mojibake: bool = Field(True, description="undo text decoded with the wrong charset (ftfy)")
    unicode_form: Literal["", "NFC", "NFKC"] = Field("NFC", description="normal form; empty: as it is")
    invisible: bool = Field(True, description="remove control, zero-width and direction characters")
    blanks: bool = Field(True, description="Unicode's blanks to plain ones, none at line ends, one empty line at most")
    markup: bool = Field(False, description="remove stray tags, entities, BBCode and wiki marks")
    homoglyphs: bool = Field(True, description="letters of another script that look like the word's own, to the own")
    emoji: bool = Field(False, description="emoji and emoticons to words")
    misspellings: bool = Field(False, description="codespell's misspellings that have one correction; English only")
    c4_lines: bool = Field(False, description="drop C4's lines: scripts, policies, under 3 words; citation marks")
    c4_terminal: bool = Field(False, description="with c4_lines: drop lines that end without punctuation, too")
    refinedweb_lines: bool = Field(False, description="drop RefinedWeb's lines: upper case, numbers, counters")
    site_lines: bool = Field(False, description="drop lines that many documents of one site share")
    neutral_terms: bool = Field(False, description="policeman to police officer, and the like; English")
    counterfactual: bool = Field(
        False, description="swap the genders in half of the documents, chosen by hash of the id; English"
    )
    counterfactual_names: bool = Field(False, description="with counterfactual: first names too, in fixed pairs")
    email: bool = Field(True, description="mask e-mail addresses")
    phone: bool = Field(True, description="mask phone numbers that are valid with their country code or area")
    ip: bool = Field(True, description="mask global IP addresses; private ones are nobody's")
    card: bool = Field(True, description="mask payment cards: issuer's prefix and length, Luhn's check digit")
    iban: bool = Field(True, description="mask IBANs with a right check sum")
    national_id: bool = Field(True, description="mask US social security numbers, written with hyphens")
    secret: bool = Field(True, description="mask private keys, tokens and API keys of known form")


PRIVATE = KINDS
"""The steps that mask."""

EDITS = tuple(name for name in Steps.model_fields if name not in ("c4_terminal", "counterfactual_names"))
"""Names of the steps: each has a column `clean_NAME` with the number of its edits in a document."""


class CleanConfig(Fanned):
    """clean"""

    steps: Steps = Field(default_factory=Steps, description="what is done to every text")
    by_category: dict[Category, dict[str, bool | str]] = Field(
        {"misc": {"homoglyphs": False, "blanks": False}},
        description="category -> steps that differ there; code keeps its blanks",
    )
    by_source: dict[str, dict[str, bool | str]] = Field(
        default_factory=dict, description="source -> steps that differ there, over its category's"
    )
    pseudonyms: str = Field(
        "", description="a key: the same value gets the same pseudonym everywhere (<EMAIL:9f2c41>); empty: <EMAIL>"
    )
    phone_region: str = Field("US", description="ISO code whose area codes a number without country code is read by")
    site_share: float = Field(0.1, gt=0, le=1, description="site_lines: share of a site's documents that hold the line")
    site_documents: int = Field(10, ge=2, description="site_lines: and at least so many of them")
    max_removed_words: float = Field(
        0.05, gt=0, le=1, description="refinedweb_lines: a document that loses more of its words goes (RefinedWeb: 5%)"
    )

    @model_validator(mode="after")
    def _known_steps(self) -> CleanConfig:
        for changes in (*self.by_category.values(), *self.by_source.values()):
            Steps.model_validate({**self.steps.model_dump(), **changes})
        return self

    def steps_for(self, source: str, category: str) -> Steps:
        """The steps for one source of a category."""
        changes = {**self.by_category.get(category, {}), **self.by_source.get(source, {})}  # type: ignore[call-overload]
        return Steps.model_validate({**self.steps.model_dump(), **changes})
