"""What is changed in stock definitions that fail or mislead as they stand in lm-eval 0.4.13; the rest is lm-eval's.

`REPAIRS[task]` lies over the config of lm-eval's YAML. Prompts and metrics without shots stay as they were.
"""

from __future__ import annotations

from typing import Any

from . import truthfulqa

Doc = dict[str, Any]


def _webqs_answers(doc: Doc) -> list[str]:
    """Accepted answers without those that begin with another one, in alphabetical order: lm-eval's, on a copy."""
    kept: list[str] = []
    for answer in sorted(doc["answers"]):
        if not kept or not answer.startswith(kept[-1]):
            kept.append(answer)
    return kept


_MMLU = (
    "The following are multiple choice questions (with answers)"
    "{% if subject is defined and subject %} about {{ subject | replace('_', ' ') }}{% endif %}.\n\n"
)

REPAIRS: dict[str, dict[str, Any]] = {
    # the target is the list of all right choices, which no shot can show: "Answer is not a string! : [0, 1]"
    "webqs": {
        "doc_to_choice": _webqs_answers,
        "doc_to_target": lambda doc: list(range(len(_webqs_answers(doc)))),
        "fewshot_config": {"doc_to_target": lambda doc: _webqs_answers(doc)[0]},
    },
    # the target is a numpy number, which is no index of a choice in a shot
    "toxigen": {"doc_to_target": lambda doc: int(doc["toxicity_ai"] + doc["toxicity_human"] > 5.5)},
    # the target joins the names of the annotation's fields ("number,date,spans,..."); a shot shall show the answer
    "drop": {"doc_to_target": lambda doc: ", ".join(doc["answers"][0]), "target_delimiter": " "},
    # answers that are all less likely than e^-745 have no probability left: 0/0
    "truthfulqa_mc2": {"process_results": truthfulqa.true_mass},
    # one task over all subjects, each asked as lm-eval asks it: the hub's config `all` has the subject as a column
    "mmlu": {"task": "mmlu", "description": _MMLU},
}
