"""The special tokens, their place in the vocabulary, and the chat template: one definition for every user.

Ids run: what the algorithm learned (for byte-level BPE 256 bytes and merged tokens), then the named special tokens in
the order below, then reserved ones up to the padded size. Learned tokens come first, so that their ids are their merge
ranks and special tokens can be added without moving one of them; the unknown token is the first of the named ones,
since several models count it among their own entries.

Fill-in-the-middle (Bavarian et al. 2022, arXiv 2207.14255, section 3) writes a document as prefix, suffix, middle, each
after its own token.

A conversation is rendered without added white space, so that the text of a message is encoded as it
would be anywhere else:

    <|user|>What is a spillway?<|end|><|assistant|>A channel for surplus water.<|end|>
"""

from __future__ import annotations

STARTING_BYTES = 256
UNKNOWN = "<|unk|>"
END_OF_DOCUMENT = "<|endoftext|>"
PADDING = "<|pad|>"
END_OF_TURN = "<|end|>"
ROLES = ("system", "user", "assistant")
FILL_IN_THE_MIDDLE = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
NAMED = (
    UNKNOWN, END_OF_DOCUMENT, PADDING, *(f"<|{role}|>" for role in ROLES), END_OF_TURN, *FILL_IN_THE_MIDDLE,
)  # fmt: skip

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role'] + ': system, user or assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def reserved_name(number: int) -> str:
    """Name of the `number`th reserved token, from 0."""
    return f"<|reserved_{number}|>"


def transformers_config() -> dict:
    """Content of tokenizer_config.json, as `transformers.AutoTokenizer` reads it."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_DOCUMENT,
        "pad_token": PADDING,
        "unk_token": UNKNOWN,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
