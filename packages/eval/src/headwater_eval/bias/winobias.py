"""WinoBias (Zhao et al. 2018, arXiv:1804.06876): is a pronoun resolved better where its gender fits the occupation?

Each sentence names two occupations and has a pronoun; in the pro-stereotypical version its gender is that of most
workers of the occupation it refers to (US Department of Labor), in the anti-stereotypical one the other. In type 1 only
knowledge of the world tells whom it refers to, in type 2 syntax does. The bias is the accuracy on pro minus that on
anti: 0 is none, and a model that cannot resolve pronouns scores 0 too, so the accuracies stand beside it. The authors
score coreference systems by F1; a causal model is asked in words (`pronouns.task`). The test halves are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..benchmark import Benchmark, Item, Row, Scores
from ..readers import Fields, Rows
from .measures import by_part, choice_rows
from .pronouns import accuracy, difference, task
from .reading import Numbered, items_of, renumbered

BRACKETED = re.compile(r"\[([^\[\]]+)\]")
GENDERS = {
    **dict.fromkeys(("he", "him", "his", "himself"), "male"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "female"),
}


def read(path: Path) -> Rows:
    """Items of the authors' data folder: {pro,anti}_stereotyped_type{1,2}.txt.test and the two lists of occupations,
    of which `path` is one."""
    folder = path.parent
    occupations = [
        word.strip().lower()
        for name in ("female_occupations.txt", "male_occupations.txt")
        if (folder / name).is_file()
        for word in (folder / name).read_text("utf-8").splitlines()
        if word.strip()
    ]
    yield from items_of(renumbered(_lines(folder)), lambda row: _item(row, occupations))


def _lines(folder: Path) -> Iterator[Numbered]:
    for kind in ("type1", "type2"):
        for side in ("pro", "anti"):
            path = folder / f"{side}_stereotyped_{kind}.txt.test"
            lines = path.read_text("utf-8").splitlines() if path.is_file() else []
            yield from ((n, (kind, side, n, line)) for n, line in enumerate(lines, 1) if line.strip())


def _item(row: tuple[str, str, int, str], occupations: list[str]) -> Fields:
    kind, side, number, line = row
    marked = line.partition(" ")[2] if line.partition(" ")[0].isdigit() else line
    spans = [m.lower().strip() for m in BRACKETED.findall(marked)]
    pronouns = [s for s in spans if s in GENDERS]
    people = [re.sub(r"^(the|a|an) ", "", s) for s in spans if s not in GENDERS]
    if len({GENDERS[p] for p in pronouns}) != 1 or len(people) != 1:
        raise ValueError("not one person and pronouns of one gender in brackets")
    sentence = re.sub(r"[\[\]]", "", marked).strip()
    named = sorted(
        (m.start(), word) for word in occupations if (m := re.search(rf"\b{re.escape(word)}\b", sentence.lower()))
    )
    choices = list(dict.fromkeys(word for _, word in named))
    if len(choices) != 2 or people[0] not in choices:
        raise ValueError(f"{len(choices)} occupations of the lists in the sentence, or not that in brackets")
    return {"text": sentence, "query": sentence, "choices": choices, "label": choices.index(people[0]),
            "pronoun": pronouns[0], "category": kind, "direction": side, "gender": GENDERS[pronouns[0]],
            "cluster": f"{kind}-{(number - 1) // 2}", "group": f"{kind}-{number}"}  # fmt: skip


def resolution_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """Accuracy on pro- and anti-stereotypical sentences and their difference, overall and by type; by pronoun."""
    name, gender = benchmark.name, {item["id"]: item["gender"] for item in items}
    scores = {name: _pro_minus_anti(rows)}
    scores |= {f"{name}:{side}": accuracy(part) for side, part in by_part(rows, lambda r: r["direction"]).items()}
    for kind, members in by_part(rows, lambda row: row["category"]).items():
        scores[f"{name}:{kind}_difference"] = _pro_minus_anti(members)
        for side, part in by_part(members, lambda row: row["direction"]).items():
            scores[f"{name}:{kind}_{side}"] = accuracy(part)
    for pronoun, part in by_part(rows, lambda row: gender[row["doc_id"]]).items():
        scores[f"{name}:{pronoun}"] = accuracy(part)
    return scores


def _pro_minus_anti(rows: list[Row]) -> dict:
    return difference(rows, lambda row: row["direction"], "pro", "anti")


WINOBIAS = Benchmark(
    "winobias", "pronouns that fit an occupation's stereotype against pronouns that do not",
    "WinoBias/data/female_occupations.txt", read, "difference", kind="bias",
    own=task, rows=choice_rows, scores=resolution_scores, licence="MIT",
    home="https://github.com/uclanlp/corefBias",
)  # fmt: skip
