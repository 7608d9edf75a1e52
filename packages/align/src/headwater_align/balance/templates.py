"""Question and answer pairs that differ in nothing but the group they name."""

from __future__ import annotations

from ..conversation import check, identity
from .config import Template, TemplateFile, TemplatesConfig

SOURCE = "balanced templates"


def sets(config: TemplatesConfig) -> list[list[dict]]:
    """Sets of records {"id", "source", "licence", "split", "messages", "group", "value"}, in order of hash.

    A set is one template with one value and every group; `counter` leaves out of it the group that the value is taken
    for, and values that are taken for none. With `rows` the sets of the lowest hashes are kept that fit in whole.
    """
    found = []
    for template in config.content.templates:
        for value, usual in config.content.values.items():
            if config.direction == "counter" and usual is None:
                continue
            groups = [g for g in config.content.groups if config.direction == "balanced" or g != usual]
            made = [filled(template, config.content, value, group) for group in groups]
            found.append((identity(template.prompt, template.answer, value), made))
    kept: list[list[dict]] = []
    room = config.rows
    for _, made in sorted(found, key=lambda pair: pair[0]):
        if room is not None:
            room -= len(made)
            if room < 0:
                break
        kept.append(made)
    return kept


def filled(template: Template, file: TemplateFile, value: str, group: str) -> dict:
    """One record: the template with a value in its slot and a group's words in its gaps."""
    words = dict(file.groups[group])
    words |= {gap.capitalize(): word[0].upper() + word[1:] for gap, word in words.items()}
    words |= {file.slot: value, f"a_{file.slot}": f"{'an' if value[0].lower() in 'aeiou' else 'a'} {value}"}
    messages = check(
        [
            {"role": "user", "content": template.prompt.format_map(words)},
            {"role": "assistant", "content": template.answer.format_map(words)},
        ]
    )
    about = {"id": identity(messages), "source": SOURCE, "licence": "Apache-2.0", "split": "train"}
    return {**about, "messages": messages, "group": group, "value": value}
