"""What a server needs of a network, whether it is a classifier or an exported file."""

import dataclasses
from collections.abc import Callable

import numpy as np

from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference import Classifier, fold_batch_norm
from resnet_jax.inference.classifier import Backend
from resnet_jax.inference.explain import explainer


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A network that a server can run.

    The server calls the functions from one thread.

    Attributes:
        name: Name of the network in addresses and answers.
        platform: What runs the network, such as ``"jax"``.
        class_names: K names, in the order of the probabilities.
        preprocessing: How the host turns an image into uint8[H, W, C].
        probabilities: From uint8[B, H, W, C] images to the probabilities of the classes,
            float32[B, K].
        heat: From one image uint8[1, H, W, C] and one class int32[1] to the heatmap by Grad-CAM,
            float32[1, H', W'], 0 to 1. None if the network cannot be differentiated.
        batch_size: The only size B that ``probabilities`` takes. None if it takes any.
    """

    name: str
    platform: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    probabilities: Callable[[np.ndarray], np.ndarray]
    heat: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    batch_size: int | None = None

    @classmethod
    def from_classifier(
        cls, classifier: Classifier, name: str, *, backend: Backend = "jax"
    ) -> "Model":
        """Return the model of a classifier. BatchNorm is folded into convolutions where it can be.

        Args:
            classifier: A network with a head.
            name: Name of the network in addresses and answers.
            backend: What computes the probabilities, see `Classifier.with_backend`.

        Raises:
            ValueError: The network has no head, or the backend cannot compute it.
            ImportError: The backend is not installed.
        """
        if not classifier.class_names:
            raise ValueError("the network has no head and predicts no classes")
        folded = _folded(classifier).with_backend(backend)
        preprocessing = folded.preprocessing

        def probabilities(images: np.ndarray) -> np.ndarray:
            return folded.probabilities(np.asarray(folded.forward(images).logits))

        prepare = preprocessing.on_device
        heat = explainer(folded.model, folded.variables, prepare, batch_size=1)
        return cls(name, backend, folded.class_names, preprocessing, probabilities, heat)


def _folded(classifier: Classifier) -> Classifier:
    """Return an equal classifier that is faster, or the same one if there is none."""
    try:
        model, variables = fold_batch_norm(classifier.model, classifier.variables)
    except ValueError:
        return classifier
    return classifier.rebuilt(model=model, variables=variables)
