"""Params: params.yaml, overlaid by configs/SCALE.yaml, overlaid by --set, parsed into a validated model.

params.yaml holds what does not depend on scale and `scale:` itself; configs/SCALE.yaml, in the folder
`configs` beside it, holds what does. A stage reads one section of the same name from both; where both
give a key, the scale's value holds.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UsageError


class Config(BaseModel):
    """Base of every stage's config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        protected_namespaces=(),
        ser_json_inf_nan="strings",  # the default writes both as null, so two configs would share a fingerprint
    )


C = TypeVar("C", bound=Config)


def load_section(params: Path, section: str, scale: str | None = None, overrides: list[str] | None = None) -> dict:
    """The merged, still unvalidated mapping of one section.

    Args:
        params: path of params.yaml.
        section: top-level key, usually the stage's name.
        scale: preset; None takes `scale:` from params.yaml; a params file without it has no preset.
        overrides: `a.b=value` items, the value in YAML.
    """
    base = read_yaml(params)
    scale = scale or base.get("scale")
    merged = _as_mapping(base.get(section), f"{params}: {section}")
    if scale:
        preset = Path(params).parent / "configs" / f"{scale}.yaml"
        if not preset.is_file():
            names = sorted(p.stem for p in preset.parent.glob("*.yaml"))
            raise UsageError(f"no preset {preset}; scale is one of: {', '.join(names) or 'none there'}")
        merged = _overlay(merged, _as_mapping(read_yaml(preset).get(section), f"{preset}: {section}"))
    return override(merged, overrides or [])


def override(values: dict, items: list[str]) -> dict:
    """`values` overlaid by `a.b=value` items, in order, each value read as YAML.

    Raises:
        UsageError: an item without a key or with a value that is not YAML.
    """
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {item}: write KEY=VALUE, as in --set optimizer.lr=0.001")
        try:
            node: Any = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {item}: the value is not YAML") from None
        for part in reversed(key.split(".")):
            node = {part: node}
        values = _overlay(values, node)
    return values


def parse(model: type[C], values: dict, where: str) -> C:
    """Validate `values`; every fault in one line, an unknown key with the nearest right one.

    Raises:
        UsageError: on an unknown key, a missing key, a wrong type, or a contradiction.
    """
    try:
        return model.model_validate(values)
    except ValidationError as e:
        raise UsageError("; ".join(_explain(model, where, error) for error in e.errors())) from None


def defaults(model: type[Config]) -> dict:
    """What `--set` changes where no params file is given: the model's own values; {} where one has no default."""
    try:
        return resolved(model())
    except ValidationError:
        return {}


def resolved(config: Config) -> dict:
    """The config with every default filled in, as plain JSON values."""
    return json.loads(config.model_dump_json())


def read_yaml(path: Path) -> dict:
    """A YAML file whose top level is a mapping."""
    try:
        value = yaml.safe_load(Path(path).read_text())
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}; name the params file with --params") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: not readable as YAML: {' '.join(str(e).split())}") from None
    return _as_mapping(value, str(path))


def _as_mapping(value: Any, where: str) -> dict:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a mapping of keys is needed, not {type(value).__name__}")
    return value


def _overlay(below: dict, above: dict) -> dict:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if both else value
    return merged


def _explain(model: type[BaseModel], where: str, error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    path = ".".join([where, *location])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _keys_beside(model, location), n=1, cutoff=0.0)
        return f"{path}: unknown parameter" + (f"; did you mean {near[0]}?" if near else "")
    return f"{path}: {error['msg'].removeprefix('Value error, ')}"


def _keys_beside(model: Any, location: list[str]) -> list[str]:
    """The keys that were allowed where the unknown key stood."""
    for part in location[:-1]:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            continue  # a list index, a dict key or a union's branch: stay with the model at hand
        inner = [t for t in (field.annotation, *_arguments(field.annotation)) if _is_model(t)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _arguments(annotation: Any) -> list:
    found = []
    for argument in getattr(annotation, "__args__", ()):
        found += [argument, *_arguments(argument)]
    return found


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
