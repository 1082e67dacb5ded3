"""Reading ``config.json``: numbers that are checked, and the two spellings of rotary parameters."""

from __future__ import annotations

from typing import Any

from ..failure import ConvertError

Config = dict[str, Any]


def number(config: Config, key: str, default: int | float | None = None) -> int | float:
    """A number of ``config.json``. Raises ConvertError where it is missing or no number."""
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConvertError(f"config.json needs the number {key!r}, it has {value!r}")
    return value


def integer(config: Config, key: str, default: int | None = None) -> int:
    """A positive whole number of ``config.json``. Raises ConvertError where it is missing or something else."""
    value = number(config, key, default)
    if not isinstance(value, int) or value < 1:
        raise ConvertError(f"config.json needs a positive whole number {key!r}, it has {value!r}")
    return value


def require(config: Config, key: str, allowed: tuple[Any, ...], default: Any) -> None:
    """Raise ConvertError unless ``config[key]`` (or the default) is one of ``allowed``: all that libllama computes."""
    value = config.get(key, default)
    if value not in allowed:
        wanted = " or ".join(repr(a) for a in allowed)
        raise ConvertError(f"config.json has {key} = {value!r}; libllama computes this architecture with {wanted} only")


def rope_parameters(config: Config, default_theta: float) -> dict[str, Any]:
    """``{"rope_type": ..., "rope_theta": ..., ...}``, from ``rope_parameters`` or ``rope_theta`` + ``rope_scaling``."""
    stated = config.get("rope_parameters") or {
        "rope_theta": config.get("rope_theta"),
        **(config.get("rope_scaling") or {}),
    }
    if not isinstance(stated, dict):
        raise ConvertError("config.json: the rotary parameters are no JSON object")
    rope = dict(stated)
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("rope_theta") is None:
        rope["rope_theta"] = config.get("rope_theta") or default_theta
    if (factor := rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))) not in (None, 1, 1.0):
        raise ConvertError(
            f"config.json rotates a part of each head (partial_rotary_factor {factor}), which is not converted"
        )
    return rope
