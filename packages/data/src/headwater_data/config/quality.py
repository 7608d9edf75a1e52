"""The configs of signals and filter: what is measured, and the rules that judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from .._contracts.config import Config
from .execution import Fanned
from .sources import Category


class Definitions(Config):
    """What the published rules leave open. The defaults decide as datatrove's filters do, given the same words, but for
    `ngrams` (28 of 22,493 technical documents)."""

    words: Literal["blanks", "punctuation"] = Field(
        "blanks", description="a word is what blanks separate; or punctuation marks are words of their own, as spaCy's"
    )
    duplicates: Literal["repeats", "all"] = Field(
        "repeats", description="of equal lines or paragraphs, count the second and later ones, or (dolma, DCLM) all"
    )
    ngrams: Literal["words", "letters"] = Field(
        "words", description="repeated 5- to 10-grams are equal if their words, or (datatrove) their letters are: then "
        "`1 11` repeats `11 1`"
    )  # fmt: skip
    denominator: Literal["text", "words"] = Field(
        "text", description="shares of characters are of the whole text, or (DCLM, RedPajama) of its words' characters"
    )


class SignalsConfig(Fanned):
    """signals"""

    language_characters: int = Field(
        1_000, ge=50, description="language is told from so many first characters: 3.9 times cheaper than whole text, "
        "same label for 98.65% of documents (measured)"
    )  # fmt: skip
    definitions: Definitions = Field(default_factory=Definitions, description="what the published rules leave open")


Comparison = Literal["<", "<=", ">", ">=", "==", "!=", "not in"]


class RuleConfig(Config):
    """A document is removed if `signal` `remove_if` `threshold`."""

    signal: str = Field(description="column of the documents")
    remove_if: Comparison = Field(description="comparison; `not in` takes a list of words as threshold")
    threshold: float | tuple[str, ...] = Field(description="in the signal's unit")
    source: str = Field("", description="paper that published the rule and its threshold")
    categories: tuple[Category, ...] = Field((), description="categories the rule is for; none: all")
    exempt: tuple[str, ...] = Field((), description="sources the rule leaves alone")
    by_language: dict[str, float] = Field(
        default_factory=dict, description="language code -> threshold in that language instead of `threshold`"
    )
    enabled: bool = Field(True, description="false: the rule is counted in the metrics, but removes nothing")

    @model_validator(mode="after")
    def _comparable(self) -> RuleConfig:
        if (self.remove_if == "not in") != isinstance(self.threshold, tuple):
            raise ValueError("threshold: a list goes with `not in`, a number with every other comparison")
        if self.by_language and isinstance(self.threshold, tuple):
            raise ValueError("by_language: a number a language goes with every comparison but `not in`")
        return self


def published_rules() -> dict[str, RuleConfig]:
    """The rules of published_rules.yaml, the default."""
    table = yaml.safe_load((Path(__file__).parents[1] / "quality" / "published_rules.yaml").read_text())
    return {name: RuleConfig.model_validate(rule) for name, rule in table.items()}


class FilterConfig(Config):
    """filter"""

    rules: dict[str, RuleConfig] = Field(
        default_factory=published_rules,
        description="rule name -> rule, in the order in which they are tried; laid over the published ones by name",
    )
    published: bool = Field(True, description="false: the published rules are not there, `rules` are all")

    @model_validator(mode="before")
    @classmethod
    def _overlay(cls, values: dict) -> dict:
        """What a rule does not say, the published rule of its name does; rules of other names follow at the end."""
        own = values.get("rules")
        if not isinstance(own, dict) or not values.get("published", True):
            return values
        rules = {name: rule.model_dump() for name, rule in published_rules().items()}
        for name, rule in own.items():
            given = rule.model_dump() if isinstance(rule, RuleConfig) else rule
            rules[name] = {**rules.get(name, {}), **given} if isinstance(given, dict) else given
        return {**values, "rules": rules}
