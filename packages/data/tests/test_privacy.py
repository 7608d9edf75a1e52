"""Precision and recall of the privacy masks on labelled sentences, and what the placeholders promise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stdnum import iban, luhn

from headwater_data.clean.privacy import MASKS, find_private, mask
from headwater_data.config.clean import Steps

STEPS = Steps()

LABELLED = yaml.safe_load((Path(__file__).parent / "private_sentences.yaml").read_text())
POSITIVE, FRAMES, NEGATIVE = LABELLED["positive"], LABELLED["frames"], LABELLED["negative"]


def kinds(text: str) -> list[str]:
    return [kind for _, _, kind, _ in find_private(text, STEPS)]


@pytest.mark.parametrize("kind", MASKS)
def test_recall_on_labelled_sentences_is_whole(kind):
    missed = [frame.format(v) for v in POSITIVE[kind] for frame in FRAMES if kinds(frame.format(v)) != [kind]]
    assert missed == []


def test_precision_on_hard_negatives_is_whole():
    assert {text: kinds(text) for text in NEGATIVE if kinds(text)} == {}


def test_real_documentation_holds_almost_nothing_private(topics, modules):
    """The language reference names no person: every find there is a false one."""
    assert sum(len(find_private(text, STEPS)) for text in topics) == 0


@given(st.integers(0, 10**6))
def test_generated_cards_and_accounts_are_found_and_a_wrong_digit_is_not(seed):
    draw = random.Random(seed)
    stem = "4" + "".join(draw.choice("0123456789") for _ in range(14))
    card = stem + luhn.calc_check_digit(stem)
    if len(set(card)) > 1:
        assert kinds(f"Card {card} please") == ["card"]
    wrong = card[:-1] + str((int(card[-1]) + 1 + draw.randrange(9)) % 10)
    assert (wrong == card) == ("card" in kinds(f"Card {wrong} please"))
    body = "".join(draw.choice("0123456789") for _ in range(18))
    account = f"DE{iban.calc_check_digits('DE00' + body)}{body}"
    assert kinds(f"pay to {account} now") == ["iban"]


@pytest.mark.parametrize(
    ("beside", "alone", "kind"),
    [
        ("Phone:\n0421 50360", "Chapter 0421 50360", "phone"),
        ("mobile 0766139634", "part 0766139634", "phone"),
        ("(0734) 751087 fax", "(0734) 751087 pages", "phone"),
        ("my Maestro card 6759649826438453", "order 6759649826438453", "card"),
    ],
)
def test_a_word_beside_a_number_says_what_the_number_alone_does_not(beside, alone, kind):
    assert (kinds(beside), kinds(alone)) == ([kind], [])


def test_placeholders_tell_the_kind_and_pseudonyms_repeat():
    text = "From a.b@corp.com to A.B@corp.com, cc x@corp.com"
    spans = find_private(text, STEPS)
    assert mask(text, spans) == "From <EMAIL> to <EMAIL>, cc <EMAIL>"
    first, second, third = (part.partition(">")[0] for part in mask(text, spans, key="k").split("<")[1:])
    assert first == second != third and first.startswith("EMAIL:")
    assert mask(text, spans, key="another") != mask(text, spans, key="k")


def test_a_masked_text_holds_nothing_more_to_mask():
    text = " ".join(value for values in POSITIVE.values() for value in values)
    for key in ("", "k"):
        assert find_private(mask(text, find_private(text, STEPS), key), STEPS) == []


def test_a_switched_off_kind_is_left_alone():
    steps = Steps(email=False)
    assert [k for _, _, k, _ in find_private("a@b.org +49 30 901820", steps)] == ["phone"]
