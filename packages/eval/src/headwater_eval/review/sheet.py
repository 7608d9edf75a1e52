"""What a reviewer opens: one page without a network, the same as a CSV table, and the same as Label Studio's tasks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import jinja2

from ..documents import seeded_rank
from ..report.units import safe_text
from .sampling import Drawn, Unit

COLUMNS = ("item", "task", "prompt", "options", "answer", "gold", "class", "corrected", "comment", "reviewer")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
CLASS, CORRECTED, COMMENT = "class", "corrected", "comment"
"""Names of Label Studio's controls, and columns of the table."""


def of_reviewer(drawn: Sequence[Drawn], reviewer: str, seed: int) -> list[Unit]:
    """The answers of one reviewer, in an order of their own that tells nothing of model, task or outcome."""
    own = [d.unit for d in drawn if reviewer in d.reviewers]
    return sorted(own, key=lambda unit: seeded_rank(seed, f"order {reviewer} {unit.id}"))


def shown(unit: Unit, show_gold: bool) -> dict[str, str]:
    """What a reviewer may see of an answer: not the model, nor how sure it was."""
    options = "\n".join(f"({i}) {option}" for i, option in enumerate(unit.options, 1))
    gold = unit.gold if show_gold else ""
    texts = {"prompt": unit.prompt, "options": options, "answer": unit.answer, "gold": gold}
    return {"item": unit.id, "task": unit.task, **{name: safe_text(text) for name, text in texts.items()}}


def table(units: Sequence[Unit], reviewer: str, show_gold: bool) -> str:
    """A CSV table, with empty columns to fill in.

    A text that a spreadsheet would run as a formula gets an apostrophe before it: a model may write anything.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for unit in units:
        row = {name: f"'{v}" if v.startswith(FORMULA) else v for name, v in shown(unit, show_gold).items()}
        writer.writerow({**row, "reviewer": reviewer})
    return out.getvalue()


def label_studio_tasks(units: Sequence[Unit], reviewer: str, show_gold: bool) -> str:
    """Tasks in Label Studio's basic JSON format: what the tags of `label_studio_config` name stands in `data`."""
    tasks = [{"data": {**shown(unit, show_gold), "reviewer": reviewer}} for unit in units]
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def label_studio_config(classes: Mapping[str, str], show_gold: bool) -> str:
    """Label Studio's labelling configuration (1.x; labelstud.io/tags): three controls on the text of the answer."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Style").text = ".htx-text { white-space: pre-wrap; }"
    blocks = {"prompt": "What the model was given", "options": "Options", "answer": "What the model answered"}
    if show_gold:
        blocks["gold"] = "Expected answer"
    for name, title in blocks.items():
        ElementTree.SubElement(view, "Header", value=title)
        ElementTree.SubElement(view, "Text", name=name, value=f"${name}")
    ElementTree.SubElement(view, "Header", value="The first that applies")
    choices = ElementTree.SubElement(
        view, "Choices", name=CLASS, toName="answer", choice="single-radio", required="true",
        requiredMessage="Choose a class; none, if the answer is fine",
    )  # fmt: skip
    for name, told in classes.items():
        ElementTree.SubElement(choices, "Choice", value=name, hint=told)
    for name, title in ((CORRECTED, "A right answer"), (COMMENT, "Comment")):
        ElementTree.SubElement(view, "Header", value=title)
        ElementTree.SubElement(
            view, "TextArea", name=name, toName="answer", rows="2", editable="true", maxSubmissions="1"
        )
    ElementTree.indent(view, " ")
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def page(
    units: Sequence[Unit], reviewer: str, classes: Mapping[str, str], sheet: str, title: str, show_gold: bool
) -> str:
    """One HTML file that works from a disk: answers to judge, and buttons that save CSV or JSON.

    Args:
        sheet: name of the sample; what a browser remembers belongs to it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__), autoescape=True, undefined=jinja2.StrictUndefined
    )
    data = {"sheet": sheet, "reviewer": reviewer, "classes": list(classes.items()),
            "items": [shown(unit, show_gold) for unit in units]}  # fmt: skip
    return environment.get_template("review.html.j2").render(title=title, data=data) + "\n"
