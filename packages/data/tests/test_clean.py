"""Normalisation, line rules and the clean stage: what is edited, what is left alone, what is counted."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headwater_data.clean import line_rules, normalise
from headwater_data.clean.stage import clean_text
from headwater_data.config.clean import EDITS, CleanConfig, Steps

EVERYTHING = {name: True for name in Steps.model_fields if name != "unicode_form"}
PIECES = st.sampled_from([
    "caf\u00e9", "cafe\u0301", "Ã©tÃ©", "p\u0430ypal", "\u0440\u0430\u0439", "\u200b", "\u200d", "\u202e", "\ufeff",
    "\x00", "\u00a0", "\u2028", " \n", "\n\n\n\n", "<b>", "</p>", "&amp;", "&lt;b&gt;", "&amp;lt;", "[b]",
    "{{x}}", "[[link|word]]", "'" * 3, "\U0001f600", ":-)", "teh", "recieve", "RECIEVE", "[1]", "javascript",
    "12 likes", "one", "a b c.",
    "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "a@b.org", "+49 30 901820", " ",
])  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=30).map("".join)


@pytest.mark.parametrize(
    "step",
    [
        normalise.fix_mojibake, lambda t: normalise.normalise_form(t, "NFC"),
        lambda t: normalise.normalise_form(t, "NFKC"),
        normalise.remove_invisible, normalise.normalise_blanks, normalise.remove_markup, normalise.fix_homoglyphs,
        normalise.correct_misspellings,
    ],
    ids=["mojibake", "NFC", "NFKC", "invisible", "blanks", "markup", "homoglyphs", "misspellings"],
)  # fmt: skip
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_a_second_pass_changes_nothing_and_no_edit_means_no_change(step, text):
    once, edits = step(text)
    assert step(once)[0] == once
    assert (edits == 0) == (once == text) or edits > 0


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (normalise.fix_mojibake, "Ã©tÃ© Ã  la mer\nplain", "été à la mer\nplain"),
        (normalise.remove_invisible, "in\u200bvi\u00adsi\u202eble\x07\r\nx", "invisible\nx"),
        (
            normalise.remove_invisible,
            "\u0645\u06cc\u200c\u062e",
            "\u0645\u06cc\u200c\u062e",
        ),  # Persian needs its joiner
        (normalise.remove_invisible, "\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        (normalise.normalise_blanks, "a\u00a0b\u2003c  \n\n\n\nd", "a b c\n\nd"),
        (normalise.remove_markup, "<p class=x>Tom &amp; [b]Jerry[/b]</p> [[page|a link]]", "Tom & Jerry a link"),
        (normalise.remove_markup, "if a<b and c>d: list[int] && x", "if a<b and c>d: list[int] && x"),
        (normalise.fix_homoglyphs, "p\u0430yp\u0430l and \u0440\u0430\u0439", "paypal and \u0440\u0430\u0439"),
        (normalise.fix_homoglyphs, "\u0394x is small", "\u0394x is small"),
        (normalise.name_emoji, "fine :-) \u2764\ufe0f", "fine smile  red heart "),
        (
            normalise.correct_misspellings,
            "I recieve, Recieve, RECIEVE; reCIEVE",
            "I receive, Receive, RECEIVE; reCIEVE",
        ),
    ],
)
def test_each_step_edits_what_it_names_and_leaves_the_rest(step, before, after):
    assert " ".join(step(before)[0].split(" ")).replace("  ", " ") == after.replace("  ", " ")


def test_c4_keeps_the_lines_that_c4_keeps():
    lines = ["A good line stands here.[3]", "home", "Please enable JavaScript to go on", "Read our privacy policy here",
             "no full stop here"]  # fmt: skip
    text = "\n".join(lines)
    kept, dropped = line_rules.c4_lines(text)
    assert kept == "A good line stands here.\nno full stop here" and dropped == 4
    assert line_rules.c4_lines(text, terminal=True)[0] == "A good line stands here."


def test_refinedweb_drops_noise_and_counts_its_words():
    noise = "MENU HOME ABOUT\n12\n3 likes\nRead more...\nalone"
    text = f"A sentence that stays as it is.\n{noise}\nAnother sentence that stays."
    kept, dropped, share = line_rules.refinedweb_lines(text)
    assert kept == "A sentence that stays as it is.\nAnother sentence that stays."
    assert dropped == 5 and share == pytest.approx(9 / 20)


def test_clean_counts_each_edit_in_a_column_and_changes_nothing_else(tmp_path, topics):
    frame = documents_frame([topics[0], "Write to jane.roe@bigcorp.com or +49 30 901820.\u200b", "\u200b"])
    out = run_stage("clean", tmp_path, {"documents": documents_folder(tmp_path / "in", frame)}, workers=1)
    cleaned = pl.read_parquet(out / "part-*.parquet")
    assert cleaned["text"][0] == topics[0]
    assert cleaned["text"][1] == "Write to <EMAIL> or <PHONE>."
    assert cleaned.select("clean_email", "clean_phone", "clean_invisible").rows() == [(0, 0, 0), (1, 1, 1)]
    assert pl.read_parquet(out / "rejects/*.parquet").select("id", "stage", "rule").rows() == [
        ("web/d2", "clean", "empty")
    ]
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["documents_in"], metrics["documents_out"], metrics["edits"]["email"]) == (3, 2, 1)
    assert set(metrics["edits"]) == set(EDITS)


def test_lines_that_a_site_repeats_go_and_others_stay(tmp_path):
    pages = [f"Our shop\nPage {i} tells of its own matter.\nAll rights reserved" for i in range(12)]
    others = [f"Our shop\nText {i}" for i in range(12)]
    frames = [documents_frame(pages[:5]), documents_frame(pages[5:], prefix="e"), documents_frame(others[:3], "other")]
    folder = documents_folder(tmp_path / "in", *frames)
    steps = {"site_lines": True}
    out = run_stage("clean", tmp_path, {"documents": folder}, workers=2, steps=steps, site_documents=10)
    texts = pl.read_parquet(out / "part-*.parquet")["text"].to_list()
    assert texts[:12] == [f"Page {i} tells of its own matter." for i in range(12)]
    assert texts[12:] == others[:3]


def test_a_document_that_loses_too_many_words_to_line_rules_goes(tmp_path):
    frame = documents_frame(
        ["One line that stays here.\nMENU HOME ABOUT CONTACT", "Only words that stay, all of them."]
    )
    steps = {"refinedweb_lines": True}
    out = run_stage("clean", tmp_path, {"documents": documents_folder(tmp_path / "in", frame)}, steps=steps, workers=1)
    rejects = pl.read_parquet(out / "rejects/*.parquet")
    assert rejects.select("id", "rule", "threshold").rows() == [("web/d0", "refinedweb_lines", 0.05)]
    assert rejects["value"][0] == pytest.approx(4 / 9) and "MENU" in rejects["text"][0]


def test_steps_differ_by_category_and_source():
    config = CleanConfig(by_category={"misc": {"blanks": False}}, by_source={"forum": {"emoji": True, "blanks": True}})
    assert not config.steps_for("code", "misc").blanks
    assert config.steps_for("forum", "misc").blanks and config.steps_for("forum", "misc").emoji
    with pytest.raises(ValidationError, match="by_source|emojis"):
        CleanConfig(by_source={"forum": {"emojis": True}})


@given(TEXTS)
@settings(max_examples=80, deadline=None)
def test_all_steps_together_take_any_text(text):
    config = CleanConfig(steps=EVERYTHING)
    cleaned, edits, share = clean_text(text, config.steps, config)
    assert isinstance(cleaned, str) and 0 <= share <= 1 and all(n >= 0 for n in edits.values())
    cleaned.encode()
