"""Patterns that cut text into pieces before byte pairs are merged; no token crosses a cut.

Both are written without possessive quantifiers, so that every engine reads them alike; what one would keep is never
given back here anyway. pieces.py walks as they match.
"""

from __future__ import annotations


def split_pattern(split: str, digits: int) -> str:
    """The regular expression of a split.

    Args:
        split: `gpt2` (Radford et al. 2019, the released encoder.py), or `gpt4` (tiktoken's cl100k_base), which Llama 3
            took over.
        digits: longest run of digits in one piece; 0 for no limit. GPT-2 has none, GPT-4 three.
    """
    run = rf"\p{{N}}{{1,{digits}}}" if digits else r"\p{N}+"
    if split == "gpt2":
        return rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+| ?{run}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
    if split in ("gpt4", "llama3"):
        return (
            rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{run}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    raise ValueError(f"unknown split {split!r}")


RAW = r"\n+| ?[^ \n]+| +(?= [^ \n])| +"
"""Of the raw stream (sentencepiece-*): line ends apart, one blank goes with what follows it."""
