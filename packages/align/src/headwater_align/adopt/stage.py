"""Stage `adopt`: a Hugging Face folder -> an export that can be aligned, with the chat format's tokens.

Tokens that the tokenizer lacks are added behind its own. Their rows of the embeddings are the mean of the trained rows:
under fresh ones a new token may take most of the softmax (Hewitt 2021, "Initializing New Word Embeddings for Pretrained
Language Models"). Published models often have more rows than ids; those are used before the matrices grow.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, sha256_file, write_atomic
from .._contracts.stage import Run
from ..chat_format import ChatFormat
from ..engine import GPT, build, export, pretrained, runtime, torch
from .config import AdoptConfig

TOKENS = ("<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""What ChatFormat needs."""
EMBEDDINGS = ("embedding.word_embeddings.weight", "output_layer.weight")
"""Matrices with a row an id; the second is missing where both are one."""


def run(run: Run) -> None:
    """Write the export and metrics.json.

    Raises:
        UserError: no such folder, a class that Headwater does not read, a reward model.
    """
    config: AdoptConfig = run.config
    runtime.initialize(seed=0)
    _, head = pretrained.read_config(config.folder)
    if head != "lm":
        raise UserError(f"{config.folder}: no language model but one with a scalar head; name the model it came from")
    loaded = pretrained.load(config.folder, dtype=pretrained.TYPES[config.dtype])
    first = max(loaded.tokenizer.get_vocab().values()) + 1
    added = add_tokens(loaded.tokenizer)
    needed = max(loaded.tokenizer.get_vocab().values()) + 1
    vocab = loaded.config.vocab
    if needed > vocab:
        vocab = -(-needed // config.vocab_multiple) * config.vocab_multiple
    shape = loaded.config.model_copy(update={"vocab": vocab})
    model = with_rows(loaded.model, build(shape, "lm", pretrained.TYPES[config.dtype], seed=0), first) if added \
        else loaded.model  # fmt: skip
    named = run.work / "tokenizer"
    write_tokenizer(named, loaded.tokenizer, config.folder)
    export(run.out, pretrained.Loaded(model, shape, loaded.tokenizer, named), ChatFormat(loaded.tokenizer), "lm")
    run.log(f"{shape.layers} layers, {vocab} ids ({loaded.config.vocab} before), {len(added)} tokens added")
    run.write_metrics(
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens_added": list(added),
            "vocab_before": loaded.config.vocab,
            "vocab": vocab,
            "taken_from": {
                path.name: sha256_file(path)
                for path in sorted(config.folder.iterdir())
                if path.suffix in (".json", ".safetensors")
            },
        }
    )


def add_tokens(tokenizer: Tokenizer) -> list[str]:
    """Give a tokenizer the chat format's tokens that it lacks, behind its own; which they were."""
    missing = [token for token in TOKENS if tokenizer.token_to_id(token) is None]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    return missing


def with_rows(model: GPT, grown: GPT, first: int) -> GPT:
    """`grown` with the weights of `model`; rows of its embeddings from id `first` on are the mean of those before.

    Args:
        grown: of the same shape but for the vocabulary, which is at least as large.
    """
    state = model.state_dict()
    for name in EMBEDDINGS:
        if state.get(name) is not None:
            rows = state[name][:first]
            mean = rows.float().mean(0, keepdim=True).to(rows.dtype)
            wanted = grown.state_dict()[name].size(0)
            state[name] = torch.cat([rows, mean.expand(wanted - first, -1)])
    grown.load_state_dict(state)
    return grown


def write_tokenizer(folder: Path, tokenizer: Tokenizer, given: Path) -> None:
    """tokenizer.json, and the given tokenizer_config.json with a padding token and without a foreign chat template."""
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    options = json.loads((given / "tokenizer_config.json").read_text())
    options.pop("chat_template", None)
    if options.get("pad_token") is None:
        options["pad_token"] = "<|pad|>"
    write_atomic(folder / "tokenizer_config.json", canonical_json(options))
