"""TransCoder's task (Roziere et al. 2020, arXiv:2006.03511): translate a function so that it computes the same.

Computational accuracy, CA@N in the paper: the share of functions of which one of N translations passes all tests (our
`ca@k` estimates it from more samples than k, as pass@k does). The authors ask a translation model; the prompt for a
language model is ours. Their scripts hold the reference as f_gold, a line that says where the translation goes, and a
main part that calls f_filled.
"""

from __future__ import annotations

import re

NAMES = {"python": "Python", "cpp": "C++", "java": "Java"}
TO_FILL = {"python": "#TOFILL", "cpp": "//TOFILL", "java": "//TOFILL"}
# The authors' own prelude, less numpy: programs here get the standard library.
_PRELUDE = """import math
from math import *
import collections
from collections import *
import heapq
import itertools
import random
import sys

"""


def prompt(source: str, source_language: str, target_language: str) -> str:
    """What the model is asked to go on from."""
    before, after = NAMES[source_language], NAMES[target_language]
    return f"Translate this {before} function to {after}.\n\n{before}:\n{source.strip()}\n\n{after}:\n"


STOPS = ["\nTranslate this ", "\nPython:", "\nC++:", "\nJava:"]


def script(test_script: str, language: str, response: str) -> str | None:
    """The test script with the response's first function in its place; None where there is none.

    Raises:
        ValueError: the script does not say where.
    """
    if TO_FILL[language] not in test_script:
        raise ValueError(f"no {TO_FILL[language]} in the test script")
    function = first_function(response, language)
    if function is None:
        return None
    text, name = function
    filled = re.sub(rf"\b{re.escape(name)}\b", "f_filled", text)
    whole = test_script.replace(TO_FILL[language], filled)
    return _PRELUDE + whole if language == "python" else whole


def first_function(text: str, language: str) -> tuple[str, str] | None:
    """The first whole function of a text and its name; what a model writes before and after it does not count."""
    return _python_function(text) if language == "python" else _braced_function(text)


def _python_function(text: str) -> tuple[str, str] | None:
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if re.match(r"def\s+\w+\s*\(", line)), None)
    if start is None:
        return None
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t)#"):
        end += 1
    imports = [line for line in lines[:start] if re.match(r"(import|from)\s", line)]
    name = re.match(r"def\s+(\w+)", lines[start])
    assert name is not None
    return "\n".join([*imports, *lines[start:end]]).rstrip() + "\n", name.group(1)


_SIGNATURE = re.compile(
    r"^[ \t]*[A-Za-z_][\w:<>,\[\]*&\s]*?\b(\w+)\s*\([^;{}()]*\)\s*(?:throws\s+\w+\s*)?\{", re.MULTILINE
)
_SKIPPED = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)


def _braced_function(text: str) -> tuple[str, str] | None:
    blank = _SKIPPED.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)  # braces in strings and comments are none
    match = _SIGNATURE.search(blank)
    if match is None:
        return None
    depth = 0
    for at in range(match.end() - 1, len(blank)):
        depth += {"{": 1, "}": -1}.get(blank[at], 0)
        if depth == 0:
            return text[match.start() : at + 1].strip() + "\n", match.group(1)
    return None
