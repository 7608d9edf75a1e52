"""BIG-bench's `task.json` as rows of the hub's data set hails/bigbench, zero-shot (Srivastava et al. 2022,
arXiv:2206.04615).

The hub's rows were made by `bigbench.bbseqio.bigbench_bridge` (type HUGGINGFACE), which takes the examples that
`bigbench.api.json_task` formats, puts the task's prefix before them and leaves out examples that stand twice; the
hub's script then strips every text and cuts scores to whole numbers. The same is done here, in the same order:

    STEM/task.json                with examples
    STEM/SUBTASK/task.json        the subtasks, in the order of their paths, where STEM/task.json has no examples
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ._contracts.errors import UserError
from .readers import Reject, Rows, json_file, shown

Json = dict[str, Any]

SEED = 42
"""`JsonTask`'s default: choices are listed in the order that a fresh generator of this seed gives for each example."""
DEFAULTS = {
    "task_prefix": "", "example_input_prefix": "\nQ: ", "example_output_prefix": "\nA: ",
    "choice_prefix": "\n  choice: ", "append_choices_to_input": True,
}  # fmt: skip
"""`json_task.JsonTask`'s, for what a task.json leaves out; a subtask inherits nothing from its task."""


def rows(path: Path, choose: bool = False) -> Rows:
    """Rows `inputs`, `targets`, `multiple_choice_targets`, `multiple_choice_scores` of a task and its subtasks.

    Beside the hub's columns each has `input`, the example's own words without prefixes and choices, and `subtask`, the
    name of its folder, null where the task has none.

    Args:
        choose: only examples with choices of which one is the best: lm-eval's multiple choice knows one right answer.

    Raises:
        UserError: a file that is no BIG-bench task.
    """
    number = 0
    for subtask, task in _tasks(path):
        told = {name: task.get(name, default) for name, default in DEFAULTS.items()}
        seen: set[str] = set()
        for example in task["examples"]:
            number += 1
            try:
                key = json.dumps(example)
                if key in seen:
                    raise ValueError("an earlier example is the same; BIG-bench asks it once")
                seen.add(key)
                row = _row(example, told)
                if choose:
                    _check_choice(example.get("target_scores"))
                yield number, {"idx": len(seen) - 1, **row, "subtask": subtask}
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as e:
                reason = f"no field {e.args[0]}" if isinstance(e, KeyError) else str(e)
                yield Reject(number, reason, shown(example))


def _check_choice(scores: dict[str, float] | None) -> None:
    if not scores:
        raise ValueError("no choices")
    best = sum(score == max(scores.values()) for score in scores.values())
    if best != 1:
        raise ValueError(f"{best} choices are equally right, not one")


def examples(path: Path) -> list:
    """The examples of a file of BIG-bench's.

    Raises:
        UserError: a file without a list of them.
    """
    return _checked(path, _object(path))["examples"]


def _tasks(path: Path) -> list[tuple[str | None, Json]]:
    whole = _object(path)
    if "examples" in whole:
        return [(None, _checked(path, whole))]
    below = sorted(path.parent.glob("*/task.json"), key=str)
    if not below:
        raise UserError(f"{path}: no examples in it and no */task.json beside it; bring the subtasks' folders along")
    return [(part.parent.name, _checked(part, _object(part))) for part in below]


def _object(path: Path) -> Json:
    task = json_file(path)
    if not isinstance(task, dict):
        raise UserError(f"{path}: no BIG-bench task (not a JSON object)")
    return task


def _checked(path: Path, task: Json) -> Json:
    if not isinstance(task.get("examples"), list):
        raise UserError(f"{path}: no BIG-bench task (no list of examples in it)")
    return task


def _row(example: Json, told: Json) -> Json:
    """One example as `json_task.default_format_fn` formats it and the hub's script stores it."""
    text, scores = example["input"], example.get("target_scores")
    if not isinstance(text, str):
        raise ValueError("the input is no text")
    if "target" not in example and not scores:
        raise ValueError("neither target nor target_scores")
    target = example["target"] if "target" in example else _best(scores or {})
    targets = target if isinstance(target, list) else [target]
    if not targets or not all(isinstance(t, str) for t in targets):
        raise ValueError("no target, or one that is no text")
    asked = text
    if scores is not None and told["append_choices_to_input"]:
        listed = sorted(scores)
        asked += told["choice_prefix"] + told["choice_prefix"].join(listed[i] for i in _order(len(listed)))
    inputs = f"{told['task_prefix']}{told['example_input_prefix']}{asked}{told['example_output_prefix']}"
    return {
        "inputs": inputs.strip(),
        "targets": [t.strip() for t in targets],
        "multiple_choice_targets": [choice.strip() for choice in scores or {}],
        "multiple_choice_scores": [int(score) for score in (scores or {}).values()],
        "input": text.strip(),
    }


def _best(scores: dict[str, float]) -> str:
    """The first choice of the highest score."""
    highest, lowest = max(scores.values()), min(scores.values())
    if highest == 0 if len(scores) == 1 else highest <= lowest:
        raise ValueError("no choice is better than another")
    return next(choice for choice, score in scores.items() if score == highest)


@cache
def _order(n: int) -> list[int]:
    order: list[int] = np.random.RandomState(SEED).permutation(n).tolist()  # numpy keeps its legacy streams as they are
    return order


READERS: dict[str, dict[str, Callable[[Path], Rows]]] = {
    "bigbench_multiple_choice": {"hub_rows": partial(rows, choose=True)},
    "bigbench_generate_until": {"hub_rows": rows},
}
"""Family of the catalogue -> what it needs beside."""
