"""An example in words: the Flan Collection's kinds of prompt (arXiv:2301.13688, section 3), drawn by the example's id.

    zero_shot       phrasing                                        -> answer
    few_shot        solved examples, phrasing                       -> answer
    zero_shot_cot   phrasing, "Let's think step by step."           -> working, answer
    few_shot_cot    examples solved with their working, phrasing    -> working, answer
    inversion       the answer, what is asked for                   -> a field

Each but the last may list the options. A draw depends on the mixture's seed, the example's id and how often it came
already, so another row more or less changes no other prompt (but for solved examples, which are drawn from all).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ..conversation import Message
from .catalogue import forms
from .config import Kind, Mixture, Task
from .examples import Example


@dataclass(frozen=True)
class Prompted:
    """An example as a conversation of one question and one answer, and how it came about."""

    messages: list[Message]
    kind: Kind
    phrasing: int
    """Number of the phrasing, or of the inversion."""
    options: bool
    """Whether the options are listed."""
    exemplars: tuple[str, ...]
    """Ids of the solved examples shown."""


class Templates:
    """The templates of one task."""

    def __init__(self, task: Task, mixture: Mixture, pool: Sequence[Example]):
        """`pool`: the examples of the task that may be shown solved; those of the training side."""
        self.task = task
        self.mixture = mixture
        self.pool = pool
        allowed: dict[Kind, bool] = {
            "zero_shot": True,
            "few_shot": len(pool) > 1,
            "zero_shot_cot": bool(task.rationale),
            "few_shot_cot": bool(task.rationale) and len(pool) > 1,
            "inversion": bool(task.inversions),
        }
        shares = {kind: share for kind, share in mixture.kinds.items() if share > 0 and allowed[kind]}
        whole = sum(shares.values())
        self.kinds: dict[Kind, float] = {kind: s / whole for kind, s in shares.items()} or {"zero_shot": 1.0}
        """Shares of the kinds that this task allows; zero-shot where the mixture asks for none of them."""

    def prompt(self, example: Example, repetition: int = 0) -> Prompted | None:
        """The example in one of its forms, another one each time it comes; None where it is too long in any.

        Solved examples that do not fit into `max_characters` are left out; with none left the prompt is of the kind
        without them, and is counted as that.
        """
        draw = Random(f"{self.mixture.seed}/{example.id}/{repetition}")
        kind = draw.choices(list(self.kinds), list(self.kinds.values()))[0]
        number = Random(f"{self.mixture.seed}/{example.id}").randrange(10**6) + repetition
        if kind == "inversion":
            number %= len(self.task.inversions)
            turn, words = self.task.inversions[number], {**example.fields, "answer": example.answer}
            messages = _exchange(turn.prompt.format_map(words), turn.answer.format_map(words))
            return Prompted(messages, kind, number, False, ()) if self._fits(messages) else None
        number %= len(self.task.phrasings)
        listed = draw.random() < self.mixture.options and example.options is not None
        style = draw.choice(forms().options)
        reasoning = draw.choice(forms().reasoning)
        layout = draw.choice(forms().exemplars)
        shots = draw.randint(*self.mixture.shots)

        def ask(one: Example) -> tuple[str, str]:
            question = self.task.phrasings[number].format_map(one.fields)
            if listed and one.options:
                question = f"{question}\n\n{style.lines(one.options)}"
            if not kind.endswith("cot"):
                return question, one.answer
            words = {"prompt": question, "answer": one.answer, "rationale": one.rationale}
            return reasoning.asked.format_map(words), reasoning.answer.format_map(words)

        question, answer = ask(example)
        shown = self._others(example, shots, draw) if kind.startswith("few_shot") else []
        while shown:
            solved = [layout.shown.format(prompt=q, answer=a) for q, a in map(ask, shown)]
            messages = _exchange(layout.joint.join([*solved, layout.asked.format(prompt=question)]), answer)
            if self._fits(messages):
                return Prompted(messages, kind, number, listed, tuple(one.id for one in shown))
            shown.pop()
        messages = _exchange(question, answer)
        kind = "zero_shot_cot" if kind.endswith("cot") else "zero_shot"
        return Prompted(messages, kind, number, listed, ()) if self._fits(messages) else None

    def unseen(self, example: Example) -> tuple[int, str]:
        """(number of the phrasing, zero-shot prompt with the options listed) to score a model on."""
        number = Random(f"{self.mixture.seed}/{example.id}").randrange(10**6) % len(self.task.phrasings)
        question = self.task.phrasings[number].format_map(example.fields)
        return number, f"{question}\n\n{forms().options[0].lines(example.options)}" if example.options else question

    def _others(self, example: Example, shots: int, draw: Random) -> list[Example]:
        """Up to `shots` examples of other groups."""
        drawn = draw.sample(self.pool, min(len(self.pool), 2 * shots + 2))
        return [one for one in drawn if one.group != example.group][:shots]

    def _fits(self, messages: list[Message]) -> bool:
        limit = self.mixture.max_characters
        return not limit or sum(len(message["content"]) for message in messages) <= limit


def longest(task: Task, example: Example) -> int:
    """Characters of question and answer in the longest of their forms without solved examples."""
    listed = max(len(form.lines(example.options)) + 2 for form in forms().options) if example.options else 0
    asked = max(len(phrasing.format_map(example.fields)) for phrasing in task.phrasings) + listed + len(example.answer)
    if task.rationale:
        words = {"prompt": "", "answer": "", "rationale": example.rationale}
        asked += max(len(f.asked.format_map(words)) + len(f.answer.format_map(words)) for f in forms().reasoning)
    words = {**example.fields, "answer": example.answer}
    turned = [len(turn.prompt.format_map(words)) + len(turn.answer.format_map(words)) for turn in task.inversions]
    return max(asked, *turned, 0)


def _exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question.strip()}, {"role": "assistant", "content": answer.strip()}]
