"""Hugging Face folders: how a model leaves Headwater, and how it comes back.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json

Which class of transformers a shape is written as, and which ones are read: `huggingface.registry`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from . import lora
from ._contracts import manifest as artefacts
from ._contracts.errors import UserError
from .config import ModelConfig
from .gpt import GPT, Head
from .huggingface.family import Family
from .huggingface.registry import ARCHITECTURES, family_for
from .initialise import fill, parameter_name
from .model import Model, build
from .model_config import KIND_DEFAULTS
from .special_ids import MASK, START, SpecialIds

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Built = TypeVar("Built", bound=Model)


@dataclass(frozen=True)
class Loaded(Generic[Built]):
    """A model with what is needed to use it."""

    model: Built
    config: ModelConfig
    tokenizer: Tokenizer
    folder: Path

    @property
    def end_of_text(self) -> int:
        """Id that ends a document."""
        return end_of_text(self.tokenizer, self.folder)


def load(
    folder: Path, head: Head | None = None, dtype: torch.dtype = torch.float32, dropout: float = 0.0
) -> Loaded[GPT]:
    """Read the folder of a decoder: see `load_any`.

    Raises:
        UserError: a model of another kind; and as `load_any`.
    """
    if (kind := read_config(Path(folder))[0].kind) in KIND_DEFAULTS:
        raise UserError(f"{folder}: a model of kind {kind}, where one is needed that continues text")
    return load_any(folder, head, dtype, dropout)


def load_any(
    folder: Path, head: Head | None = None, dtype: torch.dtype = torch.float32, dropout: float = 0.0
) -> Loaded[Any]:
    """Read a folder written by `save`, or by transformers for a model of a known family.

    Call `runtime.initialize` first. In any layout: each rank reads the folder and keeps its part.

    Args:
        head: None takes the folder's own. "scalar" on a language model starts a head of zeros in place of
            the output embedding; "lm" on a scalar model is refused.
        dtype: of the parameters in memory, whatever the file's.
        dropout: of embeddings and residual branches while training; what the folder says of it is not taken.

    Raises:
        UserError: no such folder, no tokenizer, no weights, a file that is not what it should be.
        ValueError: the layout does not divide the model, or a scalar head for a kind that has none.
    """
    folder = Path(folder)
    config, own = read_config(folder)
    if dropout:
        config = config.model_copy(update={"dropout": dropout})
    tokenizer = read_tokenizer(folder)
    head = head or own
    if head == "lm" and own == "scalar":
        raise UserError(f"{folder}: a scalar model has no language-model head; name the model it was made from")
    if tokenizer.get_vocab_size() > config.vocab:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} ids, the model only {config.vocab}; "
            "they do not belong together"
        )
    model = build(config, head, dtype, seed=0)
    load_weights(folder, model, config)
    return Loaded(model, config, tokenizer, folder)


def load_weights(folder: Path, model: Model, config: ModelConfig) -> None:
    """Set the weights of `model`, or of this rank's part of it, to those of a folder; no tokenizer is needed.

    Args:
        config: the folder's shape, as `read_config` gives it.

    Raises:
        UserError: no weights, or other ones than config.json says.
    """
    family, own = _family(_read_json(Path(folder) / "config.json"), folder)
    state = to_ours(_read_weights(Path(folder)), family, config, own, folder)
    if own != model.head:
        state["output_layer.weight"] = torch.zeros(1, config.hidden)

    def whole(name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        weight = state.get(parameter_name(name, index))
        if weight is None or weight.shape != shape:
            found = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
            raise UserError(f"{folder}: {parameter_name(name, index)} is {found}, not {shape} as config.json says")
        return weight

    fill(model, whole)


def save(folder: Path, model: Model, config: ModelConfig, tokenizer_folder: Path, head: Head = "lm") -> str:
    """Write `model` (one rank, the whole model) in the type of its parameters, with the tokenizer's files.

    Adapters (`lora`) are merged in what is written; the model keeps them.

    What marks gaps and masks (`SpecialIds`) gets a name in the tokenizer of an encoder or encoder-decoder.

    Args:
        folder: made if need be.
        tokenizer_folder: holds tokenizer.json and tokenizer_config.json; an export folder will do.

    Returns:
        the class that config.json names. One that begins with Headwater is none of transformers': it has no class
        for such a shape, and only Headwater reads the folder.

    Raises:
        UserError: no tokenizer there, or one with more ids than the model.
    """
    folder = Path(folder)
    tokenizer = read_tokenizer(tokenizer_folder)
    marks = _name_marks(tokenizer) if config.kind in KIND_DEFAULTS else {}
    if tokenizer.get_vocab_size() > config.vocab:
        raise UserError(
            f"{tokenizer_folder}: {tokenizer.get_vocab_size()} ids, but the model has {config.vocab}; "
            "export with the tokenizer that made the training tokens"
        )
    folder.mkdir(parents=True, exist_ok=True)
    family = family_for(config)
    weights = to_theirs({n: p.cpu() for n, p in lora.weights(model).items()}, family, config, head)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    dtype = next(model.parameters()).dtype
    named = {name: tokenizer.token_to_id(token) for name, token in (_special(tokenizer_folder) | marks).items()}
    if config.kind == "encoder_decoder":
        named["decoder_start_token_id"] = named["pad_token_id"]
    ids = {name: number for name, number in named.items() if number is not None}
    raw = _config(family, config, head, dtype, ids)
    artefacts.write_atomic(folder / "config.json", artefacts.canonical_json(raw))
    artefacts.write_atomic(folder / "generation_config.json", artefacts.canonical_json({"do_sample": True, **ids}))
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(tokenizer_folder) / name, folder / name)
    if marks:
        artefacts.write_atomic(folder / TOKENIZER_FILES[0], tokenizer.to_str(pretty=True))
        options = _read_json(folder / TOKENIZER_FILES[1]) | {n.removesuffix("_id"): t for n, t in marks.items()}
        artefacts.write_atomic(folder / TOKENIZER_FILES[1], artefacts.canonical_json(options))
    return family.architectures[head]


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model or tokenizer folder.

    Raises:
        UserError: there is none, or it is not readable.
    """
    for name in TOKENIZER_FILES:
        if not (Path(folder) / name).is_file():
            raise UserError(f"{folder}: a model folder without a tokenizer ({name} is missing); copy it there")
    try:
        return Tokenizer.from_file(str(Path(folder) / TOKENIZER_FILES[0]))
    except Exception as e:  # tokenizers raises bare Exception
        raise UserError(f"{Path(folder) / TOKENIZER_FILES[0]}: no readable tokenizer ({e})") from None


def end_of_text(tokenizer: Tokenizer, folder: Path) -> int:
    """Id of <|endoftext|>, which ends a document; where a tokenizer has none, of its config's eos_token.

    Raises:
        UserError: the tokenizer of `folder` has neither.
    """
    for token in ("<|endoftext|>", _special(folder).get("eos_token_id")):
        if token is not None and (found := tokenizer.token_to_id(token)) is not None:
            return found
    raise UserError(
        f"{folder}: neither a token <|endoftext|>, which ends every document, nor an eos_token in "
        "tokenizer_config.json; train the tokenizer again"
    )


def read_config(folder: Path) -> tuple[ModelConfig, Head]:
    """Shape and head from config.json.

    Raises:
        UserError: no config.json, a class that is not known, or an option that Headwater does not have.
    """
    path = Path(folder) / "config.json"
    raw = _read_json(path)
    family, head = _family(raw, folder)
    try:
        return family.read(raw), head
    except (KeyError, TypeError, ValueError) as e:
        told = f"{e.args[0]} is missing" if isinstance(e, KeyError) else str(e)
        raise UserError(f"{path}: no usable {raw['architectures'][0]} ({' '.join(told.split())})") from None


def to_theirs(state: Mapping[str, Tensor], family: Family, config: ModelConfig, head: Head) -> dict[str, Tensor]:
    """Megatron's parameters of a whole model under the family's names and in its layout."""
    if family.pairs is None:
        return {name: weight.contiguous() for name, weight in state.items()}
    found: dict[str, Tensor] = {}
    for pair in family.pairs(config, head):
        parts = pair.split(state[pair.ours])
        found |= {name: part.contiguous() for name, part in zip(pair.theirs, parts, strict=True)}
    return found


def to_ours(
    weights: Mapping[str, Tensor], family: Family, config: ModelConfig, head: Head, folder: Path
) -> dict[str, Tensor]:
    """The other way round: `to_theirs`' inverse.

    Raises:
        UserError: a weight is missing, has another shape than the config says, or is none that the config knows of.
    """
    if family.pairs is None:
        return dict(weights)
    pairs = family.pairs(config, head)
    weights = family.modern(dict(weights))
    known = {name for pair in pairs for name in pair.theirs}
    named = {name if name in known else family.base + name: weight for name, weight in weights.items()}
    if unknown := sorted(name for name in named if name not in known and not name.endswith(family.ignored)):
        raise UserError(f"{folder}: config.json says nothing of the weight {unknown[0].removeprefix(family.base)}")
    try:
        state = {pair.ours: pair.join([named[name] for name in pair.theirs]) for pair in pairs}
    except KeyError as e:
        raise UserError(f"{folder}: {e.args[0]} is missing; the export is not whole") from None
    except RuntimeError as e:
        raise UserError(f"{folder}: weights of another shape than config.json says ({e})") from None
    return state


def _name_marks(tokenizer: Tokenizer) -> dict[str, str]:
    """Add the marks to a tokenizer that names none; answer Hugging Face's names of their ids -> tokens."""
    if SpecialIds.of(tokenizer) == SpecialIds.above(tokenizer.get_vocab_size()):
        tokenizer.add_special_tokens(SpecialIds.names())
    named = {"pad_token_id": START, "mask_token_id": MASK}
    known = {name: [t for t in tokens if tokenizer.token_to_id(t) is not None] for name, tokens in named.items()}
    return {name: tokens[0] for name, tokens in known.items() if tokens}


def _special(folder: Path) -> dict[str, str]:
    """Hugging Face's names of special ids -> tokens, where the tokenizer's config has them."""
    raw = json.loads((Path(folder) / TOKENIZER_FILES[1]).read_text())
    named = {f"{name}_token_id": raw.get(f"{name}_token") for name in ("bos", "eos", "pad")}
    tokens = {name: t["content"] if isinstance(t, dict) else t for name, t in named.items() if t}
    return tokens


def _config(
    family: Family, config: ModelConfig, head: Head, dtype: torch.dtype, ids: Mapping[str, int]
) -> dict[str, Any]:
    names = {dtype: name for name, dtype in TYPES.items()}
    raw = {
        **family.write(config),
        "architectures": [family.architectures[head]],
        "model_type": family.model_type,
        "tie_word_embeddings": config.tie_embeddings and head == "lm",
        "torch_dtype": names[dtype],
        "use_cache": True,
        "vocab_size": config.vocab,
        # transformers has ids of its own where a folder names none
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        **ids,
    }
    if head == "scalar":
        raw |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}, "problem_type": "regression"}
    return raw


def _family(raw: Mapping[str, Any], folder: Path) -> tuple[Family, Head]:
    architecture = (raw.get("architectures") or [None])[0]
    if architecture not in ARCHITECTURES:
        raise UserError(f"{folder}: {architecture} in config.json; only {', '.join(ARCHITECTURES)} can be read")
    return ARCHITECTURES[architecture]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a model folder in Hugging Face's form is needed") from None
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: not readable as JSON ({e})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a mapping of keys is needed")
    return raw


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the files that its index names."""
    files = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        files = sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))
    weights: dict[str, Tensor] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="pt") as file:
                weights |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dict)
        except (OSError, SafetensorError) as e:
            raise UserError(f"{folder / name}: not readable ({e}); export the model again") from None
    return weights
