"""The configs of signals and filter: what is measured, and the rules that judge it."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from .._contracts.config import Config
from .._contracts.execution import Fanned
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


class ClassifierConfig(Config):
    """classifier"""

    positives: tuple[str, ...] = Field((), description="sources or categories to resemble: reference works, books")
    negatives: tuple[str, ...] = Field(("internet",), description="sources or categories to stand out from: raw web")
    languages: tuple[str, ...] = Field((), description="languages to train on; none: all")
    max_documents: int = Field(200_000, ge=20, description="of each side; the ones with the smallest hashes")
    max_characters: int = Field(4_000, ge=100, description="of each document, from its start")
    heldout_fraction: float = Field(0.2, gt=0, lt=1, description="share of works that calibrate (half) and test (half)")
    word_ngrams: int = Field(2, ge=1, description="fastText: DCLM 2")
    dim: int = Field(32, ge=1, description="fastText: size of a word vector")
    buckets: int = Field(200_000, ge=1, description="fastText: hashed n-grams; the model takes 4 * dim * buckets bytes")
    epochs: int = Field(5, ge=1, description="fastText")
    lr: float = Field(0.1, gt=0, description="fastText: learning rate")
    ngram_order: int = Field(3, ge=2, le=5, description="of the language model of the positives, for perplexity")
    ngram_min_count: int = Field(2, ge=1, description="words seen less often are unknown to it")
    seed: int = Field(1, description="of the split, the choice of documents and fastText")

    @model_validator(mode="after")
    def _sides(self) -> ClassifierConfig:
        if not self.positives or not self.negatives:
            raise ValueError("positives and negatives: at least one source or category each")
        if both := set(self.positives) & set(self.negatives):
            raise ValueError(f"{sorted(both)[0]} is among positives and negatives")
        return self


class OwnModel(Config):
    """A fastText model that was trained elsewhere."""

    source: str = Field("", description="source of role weights that holds it; none: the classifier artefact counts")
    label: str = Field("__label__hq", description="the label whose probability is the score")


class SignalsConfig(Fanned):
    """signals"""

    harm_classifier: str = Field(
        "", description="any classifier of harmful text for harm_score, `module:function` of texts to scores in [0, 1]"
    )
    harm_level: Literal["document", "line"] = Field(
        "document", description="line: harm_score is that of the worst line"
    )
    quality_model: OwnModel = Field(default_factory=OwnModel, description="any fastText classifier for quality_score")

    language_characters: int = Field(
        1_000, ge=50, description="language is told from so many first characters: 3.9 times cheaper than whole text, "
        "same label for 98.65% of documents (measured)"
    )  # fmt: skip
    language_windows: int = Field(
        4, ge=1, description="longer texts are asked in so many places for language_share, which flags mixed ones"
    )
    definitions: Definitions = Field(default_factory=Definitions, description="what the published rules leave open")


TABLES = Path(__file__).parents[1] / "quality"

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
    """The rules of published_rules.yaml with the thresholds by language of languages.yaml, the default."""
    by_language = language_tables()["thresholds"]
    rules = yaml.safe_load((TABLES / "published_rules.yaml").read_text())
    return {
        name: RuleConfig.model_validate({**rule, "by_language": by_language.get(name, {})})
        for name, rule in rules.items()
    }


@cache
def language_tables() -> dict[str, dict]:
    """languages.yaml: `thresholds` (rule -> language -> threshold), `stop_words` (language -> words)."""
    return yaml.safe_load((TABLES / "languages.yaml").read_text())


class Selection(Config):
    """Which of the documents that pass the rules stay, by a score between 0 and 1."""

    keep: Literal["all", "top", "pareto"] = Field(
        "all", description="top: the best `fraction` (DCLM); pareto: a draw that also lets some low scores in (GPT-3)"
    )
    column: str = Field("quality_score", description="the score")
    fraction: float = Field(0.1, gt=0, le=1, description="top: share of documents (DCLM, arXiv 2406.11794: 0.1)")
    alpha: float = Field(9.0, gt=0, description="pareto: keep if pareto(alpha) > 1 - score (GPT-3, appendix A: 9)")
    categories: tuple[Category, ...] = Field(("internet",), description="categories it is for; the others stay")
    seed: int = Field(1, description="pareto: of the draw, which is a hash of the document's id")


FLAGS = ("keep", "drop", "wrong_extraction", "missing_domain")
Flag = Literal["keep", "drop", "wrong_extraction", "missing_domain"]


def read_flags(path: Path) -> dict[str, str]:
    """id -> flag, from a flags.csv as the page of samples saves it.

    Raises:
        ValueError: not such a file, naming the line.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            rows = list(csv.DictReader(f))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ValueError(f"flags {path}: not readable as CSV ({e})") from None
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if row.get("flag") not in FLAGS or not row.get("id"):
            raise ValueError(f"flags {path}: line {number} needs an id and a flag, one of {', '.join(FLAGS)}")
        found[row["id"]] = row["flag"]
    return found


class FilterConfig(Config):
    """filter"""

    flags: dict[str, Flag] = Field(
        default_factory=dict,
        description="document id -> what a person said of it, before every rule; or the name of a flags.csv",
    )

    select: Selection = Field(default_factory=Selection, description="after the rules")

    rules: dict[str, RuleConfig] = Field(
        default_factory=published_rules,
        description="rule name -> rule, in the order in which they are tried; laid over the published ones by name",
    )
    published: bool = Field(True, description="false: the published rules are not there, `rules` are all")

    @model_validator(mode="before")
    @classmethod
    def _overlay(cls, values: dict) -> dict:
        """Read the flags; what a rule does not say, the published rule of its name does; others follow at the end."""
        if isinstance(values.get("flags"), str):
            values = {**values, "flags": read_flags(Path(values["flags"]))}
        own = values.get("rules")
        if not isinstance(own, dict) or not values.get("published", True):
            return values
        rules = {name: rule.model_dump() for name, rule in published_rules().items()}
        for name, rule in own.items():
            given = rule.model_dump() if isinstance(rule, RuleConfig) else rule
            rules[name] = {**rules.get(name, {}), **given} if isinstance(given, dict) else given
        return {**values, "rules": rules}
