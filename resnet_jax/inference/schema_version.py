"""Versions of the JSON that describes networks and calibrations."""

from typing import Any


def check_version(plain: Any, newest: int, kind: str) -> None:
    """Check that this version of resnet_jax can read a JSON value.

    Args:
        plain: The value, an object with ``schema_version`` and, if it has one, the
            ``library_version`` that wrote it.
        newest: The newest version that can be read. The first version is 1.
        kind: What the value describes, for the message.

    Raises:
        ValueError: It has no version, or a newer one.
    """
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"this does not describe a {kind}: it has no schema_version")
    if version > newest:
        writer = plain.get("library_version", "of that time")
        raise ValueError(
            f"the {kind} has schema version {version}, and this version of resnet_jax reads "
            f"versions up to {newest}; use resnet_jax {writer} or newer"
        )
