"""Heatmaps that show which pixels speak for a class.

Grad-CAM and Grad-CAM++ weigh the channels of a feature map by the gradient of a logit. Integrated
gradients follow the logit from an empty image to the given one.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from resnet_jax.models import ResNet

Method = Literal["grad-cam", "grad-cam++", "integrated-gradients"]
"""How a heatmap is computed."""

METHODS: tuple[str, ...] = get_args(Method)

# Both as in pytorch-grad-cam.
_SCALE_EPSILON, _ALPHA_EPSILON = 1e-7, 1e-6
# Pixels above this percentile are fully hot in integrated gradients, whose few extreme values would
# leave the rest of the heatmap dark.
_PERCENTILE = 99.0
# Colors of heat from 0 to 1, evenly spaced: the map "plasma" of Matplotlib, which gets brighter
# steadily and can be told apart by people with color vision deficiency.
_COLORS = np.array(
    [
        (13, 8, 135),
        (84, 2, 163),
        (139, 10, 165),
        (185, 50, 137),
        (219, 92, 104),
        (244, 136, 73),
        (254, 188, 43),
        (240, 249, 33),
    ],
    np.float32,
)
# Share of the color in the overlay where the heat is 1.
_OPACITY = 0.7


def explain(
    model: ResNet,
    variables: Mapping[str, Any],
    images: jax.Array | np.ndarray,
    target: jax.Array | np.ndarray | int | None = None,
    *,
    method: Method = "grad-cam",
    stage: int | None = None,
) -> jax.Array:
    """Return how much each pixel of some images speaks for a class.

    The function can be called within `jax.jit`, with ``model``, ``method`` and ``stage`` static.

    Grad-CAM computes the gradient of the logit with respect to the output of a stage, averages it
    over height and width, and sums the channels of the output with these weights. Grad-CAM++
    averages the positive gradients with weights of its own, which separates several objects of the
    class better. Negative sums become 0. The map is scaled to the range 0 to 1, resized to the
    images by bilinear interpolation, and scaled again. The values are those of the package
    ``pytorch-grad-cam``.

    Integrated gradients are summed over the channels of the image; see `integrated_gradients`.
    Negative sums become 0, and the rest is divided by the 99th percentile of the image, so that the
    hottest hundredth of the pixels is 1.

    The output of a stage is that of its last block, as `ResNet.features` returns it: after the
    activation in most networks. In pre-activation and normalizer-free networks, it is the sum of
    the last residual branch and its shortcut, neither normalized nor activated.

    Args:
        model: A network with a head.
        variables: Its variables. Networks with folded BatchNorm and with ``scan=True`` are welcome.
        images: float[N, H, W, C], normalized.
        target: int[N] or int[], the indices of the classes to explain, 0 to K - 1. None explains
            the class with the largest logit of each image.
        method: One of `METHODS`.
        stage: Number of the stage whose output is weighed, from 1. None means the last stage,
            whose map is the coarsest and depends most on the class. Integrated gradients have no
            stage.

    Returns:
        float32[N, H, W], 0 to 1. A map without any evidence for the class is 0 everywhere, and so
        is one that is equal everywhere, such as that of a stage whose output has a single pixel.

    Raises:
        ValueError: The network has no head; or the method, the stage or a class does not exist.

    References:
        Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391 (Grad-CAM); Chattopadhay et al.
        2018, https://arxiv.org/abs/1710.11063 (Grad-CAM++); Sundararajan et al. 2017,
        https://arxiv.org/abs/1703.01365 (integrated gradients).
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but it is {method!r}")
    _check_target(model, target, len(images))
    stages = len(model.stage_sizes)
    if method == "integrated-gradients":
        if stage is not None:
            raise ValueError("integrated gradients have no stage; leave stage out")
    elif stage not in (None, *range(1, stages + 1)):
        raise ValueError(f"stage must be 1 to {stages}, or None for the last, but it is {stage!r}")
    return _heat(model, variables, images, target, method, stage or stages)


def integrated_gradients(
    model: ResNet,
    variables: Mapping[str, Any],
    images: jax.Array | np.ndarray,
    target: jax.Array | np.ndarray | int | None = None,
    *,
    steps: int = 50,
) -> jax.Array:
    """Return how much each value of some images adds to a logit.

    It is the value times the mean gradient of the logit on the straight line from zeros to the
    image. Zero is the mean color of the data that the images are normalized with. The results of an
    image sum to the difference of the logits of the image and of zeros, up to the error of the
    numerical integration. They are those of Captum's ``IntegratedGradients``.

    Args:
        model: As for `explain`.
        variables: As for `explain`.
        images: As for `explain`.
        target: As for `explain`.
        steps: Number of points on the line at which the gradient is computed (Gauss-Legendre
            quadrature). More of them take more time and are more accurate.

    Returns:
        float32[N, H, W, C], of both signs.

    Raises:
        ValueError: The network has no head, a class does not exist, or ``steps`` is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, but it is {steps}")
    _check_target(model, target, len(images))
    return _integrated_gradients(model, variables, images, target, steps)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image with its heatmap in color on top; where the heat is 0, it is unchanged.

    Args:
        image: uint8[H, W] or uint8[H, W, C] with 1 or 3 channels.
        heat: float[H', W'], 0 to 1. If it has another size, it is resized.

    Returns:
        uint8[H, W, 3].
    """
    image = image[..., None] if image.ndim == 2 else image
    height, width = image.shape[:2]
    heat = np.asarray(heat, np.float32)
    if heat.shape != (height, width):
        resized = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
        heat = np.asarray(resized)
    levels = np.linspace(0, 1, len(_COLORS))
    color = np.stack([np.interp(heat, levels, channel) for channel in _COLORS.T], axis=-1)
    opacity = _OPACITY * heat[..., None]
    return np.rint(image * (1 - opacity) + color * opacity).astype(np.uint8)


def _check_target(model: ResNet, target: Any, count: int) -> None:
    if not model.num_classes:
        raise ValueError("the network has no head, so there is no class to explain")
    if target is None:
        return
    if jnp.shape(target) not in ((), (count,)):
        raise ValueError(
            f"target must be one class, or one for each of {count} images, but its shape is "
            f"{list(jnp.shape(target))}"
        )
    # The values are not known while a caller's function is traced.
    if isinstance(target, jax.core.Tracer):
        return
    for index in np.ravel(np.asarray(target)):
        if not 0 <= index < model.num_classes:
            raise ValueError(f"target must be 0 to {model.num_classes - 1}, but it is {index}")


def _one_hot(model: ResNet, target: Any, count: int) -> jax.Array:
    """Return float32[N, K], 1 for the class of each image and 0 for all others."""
    classes = jnp.broadcast_to(jnp.asarray(target), (count,))
    return jax.nn.one_hot(classes, model.num_classes, dtype=jnp.float32)


@partial(jax.jit, static_argnames=("model", "method", "stage"))
def _heat(
    model: ResNet, variables: Any, images: jax.Array, target: Any, method: Method, stage: int
) -> jax.Array:
    """Return the heatmaps of `explain`, whose arguments are right."""
    if method == "integrated-gradients":
        evidence = _integrated_gradients(model, variables, images, target, steps=50)
        evidence = jnp.maximum(jnp.sum(evidence, axis=-1), 0)
        top = jnp.percentile(evidence, _PERCENTILE, axis=(1, 2), keepdims=True)
        top = jnp.where(top > 0, top, jnp.max(evidence, axis=(1, 2), keepdims=True))
        return jnp.where(top > 0, jnp.minimum(evidence / top, 1), 0)

    def logits_of(activations: jax.Array) -> jax.Array:
        return model.apply(variables, activations, stage, method="forward_from")

    maps: Any = model.apply(variables, images, train=False, method="features")
    activations = maps[f"stage{stage}"]
    logits, gradient_of = jax.vjp(logits_of, activations)
    target = jnp.argmax(logits, axis=-1) if target is None else target
    (gradients,) = gradient_of(_one_hot(model, target, len(images)))
    activations, gradients = activations.astype(jnp.float32), gradients.astype(jnp.float32)
    if method == "grad-cam":
        weights = jnp.mean(gradients, axis=(1, 2), keepdims=True)
    else:
        weights = _plus_plus_weights(activations, gradients)
    cam = jnp.maximum(jnp.sum(weights * activations, axis=-1), 0)
    shape = images.shape[:3]
    return _scaled(jax.image.resize(_scaled(cam), shape, "linear", antialias=False))


def _plus_plus_weights(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    """Return the weights of the channels in Grad-CAM++, float32[N, 1, 1, C] (equations 18, 19)."""
    squares = gradients**2
    sums = jnp.sum(activations, axis=(1, 2), keepdims=True)
    alphas = squares / (2 * squares + sums * squares * gradients + _ALPHA_EPSILON)
    return jnp.sum(alphas * jnp.maximum(gradients, 0), axis=(1, 2), keepdims=True)


def _scaled(maps: jax.Array) -> jax.Array:
    """Return float32[N, H, W] in which the smallest value of each map is 0 and the largest 1."""
    maps = maps - jnp.min(maps, axis=(1, 2), keepdims=True)
    return maps / (_SCALE_EPSILON + jnp.max(maps, axis=(1, 2), keepdims=True))


@partial(jax.jit, static_argnames=("model", "steps"))
def _integrated_gradients(
    model: ResNet, variables: Any, images: jax.Array, target: Any, steps: int
) -> jax.Array:
    def logits_of(images: jax.Array) -> jax.Array:
        return model.apply(variables, images, train=False)

    images = jnp.asarray(images, jnp.float32)
    if target is None:
        target = jnp.argmax(logits_of(images), axis=-1)
    chosen = _one_hot(model, target, len(images))
    gradient_at = jax.grad(lambda images: jnp.sum(logits_of(images) * chosen))
    nodes, weights = np.polynomial.legendre.leggauss(steps)

    def add(total: jax.Array, point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        share, weight = point
        return total + weight * gradient_at(share * images), None

    points = jnp.float32((nodes + 1) / 2), jnp.float32(weights / 2)
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), points)
    return images * total
