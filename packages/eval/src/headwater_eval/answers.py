"""How far a written answer agrees with the right ones: SQuAD's normalisation, exact match and token F1.

The rules of SQuAD's official script (Rajpurkar et al. 2016, 2018: evaluate-v2.0.py), which CoQA's and QuAC's share.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(answer: str) -> str:
    """Lower case, without punctuation, then without articles, blanks single."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact(gold: str, answer: str) -> float:
    """1 where both are the same once normalised."""
    return float(normalise(gold) == normalise(answer))


def f1(gold: str, answer: str) -> float:
    """Harmonic mean of precision and recall of tokens, as bags; an empty side agrees only with another."""
    right, given = normalise(gold).split(), normalise(answer).split()
    if not right or not given:
        return float(right == given)
    same = sum((Counter(right) & Counter(given)).values())
    return 2 * same / (len(right) + len(given))


def best(score: Callable[[str, str], float], golds: list[str], answer: str) -> float:
    """The score against the gold answer that agrees most."""
    return max(score(gold, answer) for gold in golds)


def leave_one_out(score: Callable[[str, str], float], golds: list[str], answer: str) -> float:
    """The mean, over the gold answers left out one at a time, of the best score against the others.

    So a model is compared with as many people as a person is (Reddy et al. 2019, CoQA, section 5.1; Choi et al. 2018,
    QuAC, section 5.1). With one gold answer it is the score against that.
    """
    if len(golds) == 1:
        return score(golds[0], answer)
    scores = [score(gold, answer) for gold in golds]
    return sum(max(scores[:i] + scores[i + 1 :]) for i in range(len(golds))) / len(golds)
