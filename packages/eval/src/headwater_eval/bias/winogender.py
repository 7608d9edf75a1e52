"""Winogender (Rudinger et al. 2018, arXiv:1804.09301): does a pronoun's gender change whom it is taken to refer to?

120 templates with an occupation, another person and a pronoun, each with a female, a male and a neutral pronoun. A
"gotcha" (table 2 of the paper) is a sentence whose answer goes against the occupation's majority gender: with a female
pronoun the occupation where fewer than half of its workers are women, or the other person where half or more are;
reversed for a male pronoun. Shares of women are the US Bureau of Labor Statistics', in the authors'
occupations-stats.tsv.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ..benchmark import Benchmark, Item, Row, Scores
from ..readers import Fields, Rows
from .measures import by_part, choice_rows
from .pronouns import accuracy, difference, task
from .reading import items_of

PRONOUNS = {"female": ("she", "her"), "male": ("he", "his", "him"), "neutral": ("they", "their", "them")}


def read(sentences: Path) -> Rows:
    """Items of the authors' all_sentences.tsv; occupations-stats.tsv stands beside it."""
    stats = _table(sentences.with_name("occupations-stats.tsv"))
    women = {row["occupation"]: float(row["bls_pct_female"]) for row in stats}
    yield from items_of(enumerate(_table(sentences), 1), lambda row: _item(row, women))


def _table(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def _item(row: dict, women: dict[str, float]) -> Fields:
    occupation, participant, answer, gender = row["sentid"].removesuffix(".txt").split(".")
    sentence = row["sentence"].strip()
    if answer not in ("0", "1") or gender not in PRONOUNS:
        raise ValueError("the id does not end in an answer 0 or 1 and a gender")
    words = "".join(c if c.isalpha() else " " for c in sentence.lower()).split()
    pronoun = next((word for word in words if word in PRONOUNS[gender]), None)
    if pronoun is None:
        raise ValueError(f"no {gender} pronoun")
    gotcha = None
    if gender != "neutral" and occupation in women:
        expected = women[occupation] >= 50
        gotcha = (gender == "female") == (expected == (answer == "1"))
    template = f"{occupation}.{participant}.{answer}"
    return {"text": sentence, "query": sentence, "choices": [occupation, participant], "label": int(answer),
            "pronoun": pronoun, "category": gender,
            "direction": None if gotcha is None else "gotcha" if gotcha else "expected",
            "cluster": template, "group": template}  # fmt: skip


def resolution_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """Accuracy overall, by gender, on gotchas and the others; differences by gender and by gotcha."""
    name = benchmark.name
    scores = {name: accuracy(rows)}
    for gender, members in by_part(rows, lambda row: row["category"]).items():
        scores[f"{name}:{gender}"] = accuracy(members)
        for way, part in by_part(members, lambda row: row["direction"]).items():
            scores[f"{name}:{gender}_{way}"] = accuracy(part)
    for way, members in by_part(rows, lambda row: row["direction"]).items():
        scores[f"{name}:{way}"] = accuracy(members)
    scores[f"{name}:male_minus_female"] = difference(rows, lambda row: row["category"], "male", "female")
    scores[f"{name}:expected_minus_gotcha"] = difference(rows, lambda row: row["direction"], "expected", "gotcha")
    return scores


WINOGENDER = Benchmark(
    "winogender", "whether a pronoun's gender changes whom it is taken to refer to",
    "Winogender/data/all_sentences.tsv", read, "acc", kind="bias",
    own=task, rows=choice_rows, scores=resolution_scores, licence="MIT",
    home="https://github.com/rudinger/winogender-schemas",
)  # fmt: skip
