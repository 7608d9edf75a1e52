"""The special tokens, their place in the vocabulary, and the chat template: one definition for every user.

Ids run: 256 bytes and learned tokens, then the named special tokens in the order below, then reserved
ones up to the padded size. Learned tokens come first, so that their ids are their merge ranks and the
special tokens can be renamed or added to without moving one of them.

A conversation is rendered without added white space, so that the text of a message is encoded as it
would be anywhere else:

    <|user|>What is a spillway?<|end|><|assistant|>A channel for surplus water.<|end|>
"""

from __future__ import annotations

STARTING_BYTES = 256
END_OF_DOCUMENT = "<|endoftext|>"
PADDING = "<|pad|>"
END_OF_TURN = "<|end|>"
ROLES = ("system", "user", "assistant")
NAMED = (END_OF_DOCUMENT, PADDING, *(f"<|{role}|>" for role in ROLES), END_OF_TURN)

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
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
