"""The error of a function that cannot be written as ONNX."""


class UnsupportedError(ValueError):
    """Raised for a computation that has no translation to ONNX.

    Attributes:
        layer: Name of the layer that computes it, which the message contains. None if it is not
            known yet.
    """

    def __init__(self, message: str, layer: str | None = None) -> None:
        super().__init__(message)
        self.layer = layer
