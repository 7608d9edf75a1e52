"""Rules are data: thresholds, categories, exemptions, and what is written of a removal."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from pydantic import ValidationError

from headwater_data._contracts.errors import UsageError
from headwater_data.config import FilterConfig, RuleConfig, published_rules
from headwater_data.config.quality import language_tables
from headwater_data.quality.heuristics import SIGNALS, measure
from headwater_data.quality.language import LanguageIdentifier
from headwater_data.quality.rules import verdicts

RULES = {
    "short": {"signal": "gopher_words", "remove_if": "<", "threshold": 50, "categories": ["internet"]},
    "language": {"signal": "language", "remove_if": "not in", "threshold": ["en"]},
    "long": {"signal": "characters", "remove_if": ">", "threshold": 400, "enabled": False},
}


@pytest.fixture
def measured(tmp_path, topics):
    frames = documents_frame([topics[0], "too short"]), documents_frame(["short too"], "novel", "prose")
    folder = documents_folder(tmp_path / "in", *frames)
    (tmp_path / "signals").mkdir()
    return run_stage("signals", tmp_path / "signals", {"documents": folder}, workers=1)


def test_signals_remove_nothing_and_keep_every_value(measured):
    frame = pl.read_parquet(measured / "part-*.parquet")
    assert len(frame) == 3 and set(SIGNALS) <= set(frame.columns)
    assert frame["language"].to_list() == ["en"] * 3 and frame["language_score"].null_count() == 3


def test_a_rejected_document_carries_rule_value_and_threshold(tmp_path, measured):
    out = run_stage("filter", tmp_path, {"documents": measured}, rules=RULES, published=False)
    rejects = pl.read_parquet(out / "rejects/*.parquet")
    assert rejects.select("id", "rule", "value", "threshold", "text").rows() == [
        ("web/d1", "short", 2.0, 50.0, "too short")
    ]
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["documents_in"], metrics["documents_out"]) == (3, 2)
    assert metrics["by_rule"] == {"short": {"documents": 1, "bytes": 9}}


def test_a_switched_off_rule_is_counted_and_removes_nothing(tmp_path, measured):
    out = run_stage("filter", tmp_path, {"documents": measured}, rules={"long": RULES["long"]}, published=False)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["documents_out"] == 3 and metrics["would_fire"]["long"] == 1


def test_an_exempt_source_is_left_alone(tmp_path, measured):
    out = run_stage(
        "filter", tmp_path, {"documents": measured}, rules={"s": {**RULES["short"], "exempt": ["web"]}}, published=False
    )
    assert len(pl.read_parquet(out / "part-*.parquet")) == 3


def test_a_missing_signal_is_named_with_what_there_is(tmp_path, measured):
    with pytest.raises(UsageError, match=r"no column nonsense; they have .*gopher_words"):
        run_stage("filter", tmp_path, {"documents": measured}, rules={"x": {**RULES["short"], "signal": "nonsense"}})


def test_documents_without_signals_say_which_stage_is_missing(tmp_path, topics):
    folder = documents_folder(tmp_path / "in", documents_frame(topics[:2]))
    with pytest.raises(UsageError, match="run headwater-data signals first"):
        run_stage("filter", tmp_path, {"documents": folder})


def test_a_threshold_that_does_not_fit_its_comparison_is_refused():
    with pytest.raises(ValidationError, match="a list goes with"):
        RuleConfig(signal="language", remove_if="<", threshold=["en"])


def test_published_thresholds_are_the_papers():
    rules = FilterConfig().rules
    table_a1 = {2: 0.20, 3: 0.18, 4: 0.16, 5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    for n, threshold in table_a1.items():
        assert rules[f"gopher_{'top' if n < 5 else 'duplicate'}_{n}_gram"].threshold == threshold
    fineweb = {"terminal_lines": 0.12, "short_lines": 0.67, "duplicate_line_chars": 0.01, "newlines_per_word": 0.3}
    assert {name: rules[f"fineweb_{name}"].threshold for name in fineweb} == fineweb


def test_own_rules_lie_over_the_published_ones_by_name():
    published = published_rules()
    mine = {"gopher_short_doc": {"threshold": 20}, "mine": RULES["long"]}
    rules = FilterConfig.model_validate({"rules": mine}).rules
    assert list(rules) == [*published, "mine"]
    assert rules["gopher_short_doc"] == published["gopher_short_doc"].model_copy(update={"threshold": 20.0})
    assert {n: r for n, r in rules.items() if n not in mine} == {
        n: r for n, r in published.items() if n != "gopher_short_doc"
    }
    assert list(FilterConfig.model_validate({"rules": {"mine": RULES["long"]}, "published": False}).rules) == ["mine"]


def test_a_threshold_may_differ_by_language(tmp_path, measured):
    rule = {**RULES["short"], "threshold": 1, "by_language": {"en": 3}, "categories": []}
    out = run_stage("filter", tmp_path, {"documents": measured}, rules={"short": rule}, published=False)
    rejects = pl.read_parquet(out / "rejects/*.parquet").sort("id")
    assert rejects.select("id", "value", "threshold").rows() == [("novel/d0", 2.0, 3.0), ("web/d1", 2.0, 3.0)]


GERMAN = """Der Leuchtturm steht seit zweihundert Jahren auf der Klippe und weist den Schiffen den Weg in den Hafen.
In der Nacht dreht sich die Lampe, und von weitem sieht man das Licht über dem Wasser wandern. Früher wohnte der
Wärter mit seiner Familie im Turm; heute wird alles von der Stadt aus gesteuert. Im Sommer kommen viele Besucher,
die von oben auf das Meer blicken wollen, und im Winter ist es dort so still, dass man nur den Wind hört."""


def test_a_text_is_held_against_the_thresholds_and_stop_words_of_its_own_language(tmp_path):
    folder = documents_folder(tmp_path / "in", documents_frame([GERMAN]).with_columns(lang=pl.lit("de")))
    (tmp_path / "signals").mkdir()
    measured = run_stage("signals", tmp_path / "signals", {"documents": folder}, workers=1)
    frame = pl.read_parquet(measured / "part-*.parquet")
    count = len({"der", "und", "die", "in", "von", "im", "den", "des", "mit", "das", "er", "dem", "als", "wurde", "für"}
                & set(GERMAN.lower().split()))  # fmt: skip
    assert frame["gopher_stop_words"].to_list() == [count] and count > 5
    rules = FilterConfig.model_validate({"rules": {"language": {"threshold": ["de"]}}}).rules
    assert verdicts(frame, rules)[0]["rule"].to_list() == [None]
    judged = verdicts(measure([GERMAN]).with_columns(frame.select("language", "category", "source")), {
        "gopher_stop_words": rules["gopher_stop_words"]})[0]  # fmt: skip
    assert judged["rule"].to_list() == ["gopher_stop_words"]  # no English ones in it


def test_tables_by_language_name_published_rules_and_are_in_force():
    tables, rules = language_tables()["thresholds"], published_rules()
    assert set(tables) < set(rules)
    assert {name: rules[name].by_language for name in tables} == tables
    assert not [n for n, r in rules.items() if r.by_language.get("en", r.threshold) != r.threshold and "roots" not in n]


class ByLetter(LanguageIdentifier):
    """German is what has an umlaut."""

    def __init__(self):
        pass

    def __call__(self, text: str, characters: int) -> tuple[str, float]:
        return ("de" if "ü" in text[:characters] else "en"), 1.0


def test_documents_in_several_languages_are_flagged():
    english, german = "the quick brown fox " * 50, "für überall genügt " * 50
    share = [ByLetter().share(t, "en", 500, 4) for t in (english * 4, english * 2 + german * 2, english[:300])]
    assert share == [1.0, 0.5, 1.0]
