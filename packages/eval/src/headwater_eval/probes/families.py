"""Families of probes: each makes one probe from a generator and options of the file.

A probe is a prompt, the right continuation and wrong ones. Wrong ones are of the right one's length and kind where that
can be had, so that a model which knows nothing finds them about as likely.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = ["apple", "river", "stone", "paper", "green", "seven", "window", "garden", "silver", "morning", "table",
         "horse", "yellow", "bridge", "letter", "winter", "candle", "forest", "orange", "mirror", "pocket", "summer",
         "ladder", "blanket", "kitchen"]  # fmt: skip
OPERATIONS: dict[str, tuple[Callable[[int, int], int], str, str]] = {
    "add": (lambda a, b: a + b, "+", "plus"),
    "subtract": (lambda a, b: a - b, "-", "minus"),
    "multiply": (lambda a, b: a * b, "*", "times"),
}


class Probe(NamedTuple):
    """One probe."""

    prompt: str
    right: str
    wrong: list[str]


Family = Callable[..., Probe]


def words_of(n: int) -> str:
    """A number below a thousand in English: 342 -> three hundred and forty-two."""
    if not 0 <= n < 1000:
        raise ValueError(f"{n} is not between 0 and 999")
    if n < 20:
        return SMALL[n]
    if n < 100:
        return TENS[n // 10] + (f"-{SMALL[n % 10]}" if n % 10 else "")
    return f"{SMALL[n // 100]} hundred" + (f" and {words_of(n % 100)}" if n % 100 else "")


def arithmetic(
    rng: random.Random, operation: str = "add", form: str = "digits", low: int = 1, high: int = 20, wrong: int = 3
) -> Probe:
    """`12 + 7 =` or `twelve plus seven is`, with results that lie near as the wrong ones."""
    if operation not in OPERATIONS or form not in ("digits", "words"):
        raise ValueError(f"operation is one of {', '.join(OPERATIONS)}, form digits or words")
    apply, sign, said = OPERATIONS[operation]
    a, b = rng.randint(low, high), rng.randint(low, high)
    if operation == "subtract":
        a, b = max(a, b), min(a, b)
    result = apply(a, b)
    near = [result + d for d in (1, -1, 2, -2, 3, -3, 10, -10) if result + d >= 0]
    alike = sorted(near, key=lambda n: len(str(n)) != len(str(result)))  # as many digits first
    picked = sorted(rng.sample(alike[: max(wrong, 4)], wrong))
    if form == "digits":
        return Probe(f"{a} {sign} {b} =", str(result), [str(n) for n in picked])
    return Probe(f"{words_of(a)} {said} {words_of(b)} is", words_of(result), [words_of(n) for n in picked])


def comparison(rng: random.Random, form: str = "digits", low: int = 10, high: int = 99) -> Probe:
    """Which of two numbers is the larger, or the smaller, one; as often one as the other, and in either order.

    Asked for one of them only, a taste for short words would pass: smaller numbers are shorter.
    """
    a, b = rng.sample(range(low, high + 1), 2)
    say = words_of if form == "words" else str
    which = rng.choice(["larger", "smaller"])
    right, other = (max(a, b), min(a, b)) if which == "larger" else (min(a, b), max(a, b))
    return Probe(f"Of the numbers {say(a)} and {say(b)}, the {which} one is", say(right), [say(other)])


def ordering(rng: random.Random, items: int = 3, low: int = 1, high: int = 99) -> Probe:
    """Numbers from the smallest to the largest, against two other orders of them."""
    numbers = rng.sample(range(low, high + 1), items)
    right = sorted(numbers)
    others: list[list[int]] = []
    while len(others) < 2:
        order = rng.sample(numbers, items)
        if order != right and order not in others:
            others.append(order)
    say = [", ".join(map(str, order)) for order in (right, *others)]
    given = ", ".join(map(str, rng.choice(others)))  # never in order already
    return Probe(f"The numbers {given} from the smallest to the largest:", say[0], say[1:])


def counting(rng: random.Random, low: int = 2, high: int = 8, form: str = "words") -> Probe:
    """How many times a word stands in a list of it and another."""
    word, other = rng.sample(WORDS, 2)
    n = rng.randint(low, high)
    listed = [word] * n + [other] * rng.randint(1, 3)
    rng.shuffle(listed)
    say = words_of if form == "words" else str
    wrong = [n + d for d in (-1, 1, 2) if n + d > 0]
    return Probe(f"{', '.join(listed)}. The number of times that {word} stands there is", say(n), list(map(say, wrong)))


def copying(rng: random.Random, items: int = 4) -> Probe:
    """Say the same words again, against one swap of neighbours and one changed word."""
    *words, other = rng.sample(WORDS, items + 1)
    at = rng.randrange(items - 1)
    swapped = [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
    changed = [*words[:at], other, *words[at + 1 :]]
    say = [" ".join(order) for order in (words, swapped, changed)]
    return Probe(f"Original: {say[0]}\nCopy:", say[0], say[1:])


def reversal(rng: random.Random, items: int = 3) -> Probe:
    """Say the words in the reverse order, against two other orders."""
    words = rng.sample(WORDS, items)
    right = words[::-1]
    others = [words, [*right[:-2], right[-1], right[-2]]]
    say = [" ".join(order) for order in (right, *others)]
    return Probe(f"Words: {say[1]}\nThe same words in reverse order:", say[0], say[1:])


def slots(rng: random.Random, templates: list[dict[str, Any]], vary: dict[str, list]) -> Probe:
    """Sentences with slots: `{noun}`, or `{noun[1]}` where the values of noun are lists (singular, plural)."""
    chosen = {name: rng.choice(values) for name, values in vary.items()}
    template = rng.choice(templates)
    wrong = template["wrong"] if isinstance(template["wrong"], list) else [template["wrong"]]
    fill = lambda text: SLOT.sub(lambda match: _slot(chosen, match), str(text))  # noqa: E731
    return Probe(fill(template["prompt"]), fill(template["right"]), [fill(text) for text in wrong])


SLOT = re.compile(r"\{(\w+)(?:\[(\d+)\])?\}")


def _slot(chosen: dict[str, Any], match: re.Match[str]) -> str:
    name, index = match[1], match[2]
    if name not in chosen:
        raise ValueError(f"vary has no {name}")
    return str(chosen[name] if index is None else chosen[name][int(index)])


FAMILIES: dict[str, Family] = {
    "arithmetic": arithmetic,
    "comparison": comparison,
    "ordering": ordering,
    "counting": counting,
    "copying": copying,
    "reversal": reversal,
    "slots": slots,
}
