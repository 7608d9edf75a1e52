"""Patterns that cut text into pieces before byte pairs are merged; no token crosses a cut.

Both are written without possessive quantifiers, so that every engine reads them alike; what one would keep is never
given back here anyway. pieces.py walks as they match.
"""

from __future__ import annotations

SCRIPTS = (
    r"\p{Latin}", r"\p{Greek}", r"\p{Cyrillic}", r"\p{Armenian}", r"\p{Hebrew}", r"\p{Arabic}", r"\p{Devanagari}",
    r"\p{Bengali}", r"\p{Tamil}", r"\p{Telugu}", r"\p{Thai}", r"\p{Georgian}", r"\p{Ethiopic}", r"\p{Hangul}",
    r"\p{Han}\p{Hiragana}\p{Katakana}\x{30FC}\x{FF70}",
)  # fmt: skip
"""Between which a cut is made where that is asked for; letters of all others are one more. Japanese mixes three in one
word and lengthens vowels by a mark of no script, so these are one (as sentencepiece has it, unicode_script.cc)."""


def split_pattern(split: str, digits: int, scripts: bool = False) -> str:
    """The regular expression of a split.

    Args:
        split: `gpt2` (Radford et al. 2019, the released encoder.py), or `gpt4` (tiktoken's cl100k_base), which Llama 3
            took over.
        digits: longest run of digits in one piece; 0 for no limit. GPT-2 has none, GPT-4 three.
        scripts: whether a run of letters ends where another script begins.
    """
    run = rf"\p{{N}}{{1,{digits}}}" if digits else r"\p{N}+"
    letters = r"\p{L}+"
    if scripts:
        runs = [rf"[\p{{L}}&&[{script}]]+" for script in SCRIPTS]
        letters = rf"(?:{'|'.join(runs)}|[\p{{L}}&&[^{''.join(SCRIPTS)}]]+)"
    if split == "gpt2":
        return rf"'(?:[sdmt]|ll|ve|re)| ?{letters}| ?{run}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
    if split in ("gpt4", "llama3"):
        return (
            rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?{letters}|{run}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    raise ValueError(f"unknown split {split!r}")


RAW = r"\n+| ?[^ \n]+| +(?= [^ \n])| +"
"""Of the raw stream (sentencepiece-*): line ends apart, one blank goes with what follows it."""
