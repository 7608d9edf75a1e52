"""What a family of models is: a way to write shapes, and weights that pair with Megatron's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..gpt import Head
from ..model_config import Activation, ModelConfig
from .pairs import Pair

Raw = Mapping[str, Any]
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "squared_relu",
}
"""transformers' names -> ours, for MLPs without a gate; the last name of several is the one that is written."""


class Unsupported(ValueError):
    """A model of a known family with an option that Headwater does not have."""


@dataclass(frozen=True)
class Family:
    """One family, in both directions."""

    model_type: str
    """As in config.json."""
    architectures: Mapping[Head, str]
    """Head -> name of the class in transformers."""
    base: str
    """Prefix of all names but the head's; files of the bare model lack it."""
    read: Callable[[Raw], ModelConfig]
    """config.json -> shape. Raises Unsupported, or KeyError where a key is missing.

    Dropout and the balance of experts are left at 0, whatever the model was trained with: it is read to be used or
    tuned, where dropout would blur the log-likelihoods that are compared, and where losses are counted in pairs as
    well as in tokens."""
    write: Callable[[ModelConfig], dict[str, Any]]
    """Shape -> config.json, without architectures, types and ids."""
    objection: Callable[[ModelConfig], str | None]
    """Which option of a shape the family does not have; None: it has all."""
    pairs: Callable[[ModelConfig, Head], list[Pair]] | None
    """How each weight is called and kept on the two sides, for the whole model; None: the two sides are the same."""
    ignored: tuple[str, ...] = ()
    """Endings of names in files that the model does not need: a head that is tied all the same, constants."""
    modern: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda weights: weights
    """Weights of old files, or of incomplete ones, under today's names."""


def differing(config: ModelConfig, **wanted: object) -> str | None:
    """The first option of `config` that is not as wanted, as `name value`."""
    for name, value in wanted.items():
        if getattr(config, name) != value:
            return f"{name} {getattr(config, name)}"
    return None


def refuse(raw: Raw, **wanted: object) -> None:
    """Raise Unsupported for the first key of config.json that is there and not as wanted."""
    for name, value in wanted.items():
        if raw.get(name, value) != value:
            raise Unsupported(f"{name} {raw[name]} is not supported")


def activation(raw: Raw, name: str, default: str) -> Activation:
    """Our activation for the one that config.json names under `name`."""
    theirs = raw.get(name, default)
    if theirs not in ACTIVATIONS:
        raise Unsupported(f"{name} {theirs} is not supported")
    return ACTIVATIONS[theirs]


def written_activation(ours: Activation) -> str:
    """transformers' name of an activation without a gate."""
    return {**{v: k for k, v in ACTIVATIONS.items()}, "gelu_tanh": "gelu_new"}[ours]
