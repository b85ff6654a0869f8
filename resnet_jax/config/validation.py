"""Checks that every configuration uses, and the error that they raise."""

import math
from typing import Any


class ConfigError(Exception):
    """A configuration that cannot work; the message names the field, its value and the remedy."""


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with a message unless a condition holds."""
    if not condition:
        raise ConfigError(message)


def require_positive(config: Any, *names: str) -> None:
    """Raise `ConfigError` unless each named field is finite and above 0."""
    for name in names:
        value = getattr(config, name)
        require(0 < value < math.inf, f"{name} must be above 0 and finite, but it is {value}")


def require_not_negative(config: Any, *names: str) -> None:
    """Raise `ConfigError` unless each named field is finite and at least 0."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < math.inf, f"{name} must be finite and not below 0, not {value}")


def require_share(config: Any, *names: str) -> None:
    """Raise `ConfigError` unless each named field is at least 0 and below 1."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < 1, f"{name} must be in [0, 1), but it is {value}")


def require_from_0_to_1(config: Any, *names: str) -> None:
    """Raise `ConfigError` unless each named field is from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{name} must be from 0 to 1, but it is {value}")
