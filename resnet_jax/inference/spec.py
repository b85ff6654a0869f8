"""Description of a trained network, from which the network can be built again."""

import dataclasses
from typing import Any

from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.schema_version import check_version
from resnet_jax.models import ResNet, create_model
from resnet_jax.models.names import named_value

SCHEMA_VERSION = 1
"""Version of the JSON that `ModelSpec.to_json` writes."""


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed, besides the variables, to use a trained network.

    A run writes it to ``model.json`` when it begins, and into the metadata of each checkpoint.

    Attributes:
        name: Name of the network, one of `resnet_jax.list_models`.
        fields: Overrides of `resnet_jax.create_model` as JSON values: types, activations and
            normalization by name, such as ``{"dtype": "bfloat16", "act": "silu"}``.
        num_classes: Number of classes K.
        class_names: K names, in the order of the logits.
        preprocessing: How an image becomes the input of the network.
        library_version: Version of resnet_jax that wrote it.

    Raises:
        ValueError: The number of class names is not ``num_classes``, or a name is no text.
    """

    name: str
    fields: dict[str, Any]
    num_classes: int
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    library_version: str

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in (self.name, *self.class_names)):
            raise ValueError("the names of the network and of the classes must be texts")
        if len(self.class_names) != self.num_classes:
            raise ValueError(
                f"there must be {self.num_classes} class names, but there are "
                f"{len(self.class_names)}"
            )

    def create(self) -> ResNet:
        """Return the network.

        Raises:
            ValueError: This version of resnet_jax does not know the network or the value of a
                field.
            TypeError: It does not know a field.
        """
        overrides = {name: named_value(name, value) for name, value in self.fields.items()}
        return create_model(self.name, num_classes=self.num_classes, **overrides)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with a schema version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "fields": dict(self.fields),
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.to_json(),
            "library_version": self.library_version,
        }

    @classmethod
    def from_json(cls, plain: Any) -> "ModelSpec":
        """Return the description that `to_json` of this or an older version wrote.

        Raises:
            ValueError: A newer version of resnet_jax wrote it, or it is not such a description.
        """
        check_version(plain, SCHEMA_VERSION, "model")
        try:
            return cls(
                name=plain["name"],
                fields=dict(plain["fields"]),
                num_classes=plain["num_classes"],
                class_names=tuple(plain["class_names"]),
                preprocessing=Preprocessing.from_json(plain["preprocessing"]),
                library_version=plain["library_version"],
            )
        except KeyError as error:
            raise ValueError(f"this does not describe a model: {error} is missing") from None
        except (AttributeError, TypeError) as error:
            raise ValueError(f"this does not describe a model: {error}") from None
