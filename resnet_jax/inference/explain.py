"""Heatmaps that show which pixels speak for a class.

Grad-CAM and Grad-CAM++ weigh the channels of a feature map by the gradient of a logit. Integrated
gradients follow the logit from an empty image to the given one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from resnet_jax.models import ResNet
from resnet_jax.ops.compilation import run_once_options

Method = Literal["grad-cam", "grad-cam++", "integrated-gradients"]
"""How a heatmap is computed, see `explain`."""

METHODS: tuple[str, ...] = get_args(Method)

# Both as in pytorch-grad-cam.
_SCALE_EPSILON, _ALPHA_EPSILON = 1e-7, 1e-6
# Pixels above this percentile are fully hot in integrated gradients, whose few extreme values would
# leave the rest of the heatmap dark.
_PERCENTILE = 99.0
_STEPS = 50
# Colors of heat from 0 to 1, evenly spaced. They are those of Matplotlib's map "plasma", whose
# lightness rises steadily, so that people with color vision deficiency can read it.
_COLORS = (
    (13, 8, 135),
    (84, 2, 163),
    (139, 10, 165),
    (185, 50, 137),
    (219, 92, 104),
    (244, 136, 73),
    (254, 188, 43),
    (240, 249, 33),
)
_PALETTE = np.stack(
    [
        np.interp(np.linspace(0, len(_COLORS) - 1, 256), range(len(_COLORS)), channel)
        for channel in zip(*_COLORS, strict=True)
    ],
    axis=-1,
).astype(np.uint8)
# Share of the color in the overlay where the heat is 1.
_OPACITY = 0.7
# Brightness of what the network has not seen.
_UNSEEN = 0.4


class Heatmaps(NamedTuple):
    """Heatmaps of a batch.

    Attributes:
        heat: float32[N, H, W], 0 to 1, see `explain`.
        target: int32[N], the class that each of them explains.
    """

    heat: jax.Array
    target: jax.Array


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

    Integrated gradients are summed over the channels of the image, see `integrated_gradients`.
    Negative sums become 0, and the rest is divided by the 99th percentile of the image, so that the
    hottest hundredth of the pixels is 1.

    The output of a stage is that of its last block, as `ResNet.features` returns it: after the
    activation in most networks. In pre-activation and normalizer-free networks, it is the sum of
    the last residual branch and its shortcut, neither normalized nor activated.

    Args:
        model: A network with a head.
        variables: Its variables.
        images: float[N, H, W, C], normalized.
        target: int[N] or int[], the indices of the classes to explain, 0 to K - 1. None explains
            the class with the largest logit of each image.
        method: One of `METHODS`.
        stage: Number of the stage whose output is weighed, from 1. None means the last stage, whose
            map is the coarsest and depends most on the class. Integrated gradients have no stage.

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
    return heatmaps(model, variables, images, target, method=method, stage=stage).heat


def heatmaps(
    model: ResNet,
    variables: Mapping[str, Any],
    images: jax.Array | np.ndarray,
    target: jax.Array | np.ndarray | int | None = None,
    *,
    method: Method = "grad-cam",
    stage: int | None = None,
) -> Heatmaps:
    """Return what `explain` returns, together with the classes that are explained.

    Arguments and errors are those of `explain`.
    """
    check_method(model, method, stage)
    _check_target(model, target, len(images))
    return _heatmaps(model, variables, images, target, method, stage or len(model.stage_sizes))


def explainer(
    model: ResNet,
    variables: Mapping[str, Any],
    prepare: Callable[[jax.Array], jax.Array],
    *,
    batch_size: int = 8,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function from any number of images and classes to their heatmaps by Grad-CAM.

    Args:
        model: A network with a head.
        variables: Its variables.
        prepare: From uint8[B, H, W, C] images to the input of the network, to be jitted.
        batch_size: B. The activations of a batch are kept for the gradient.

    Returns:
        From uint8[N, H, W, C] images and int[N] classes to float32[N, H', W'], the heat from 0 to 1
        at the size of the input of the network. One program is compiled for any N.
    """

    @partial(jax.jit, compiler_options=run_once_options())
    def explain_batch(variables: Any, images: jax.Array, targets: jax.Array) -> jax.Array:
        return explain(model, variables, prepare(images), targets)

    def heat(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        count = len(images)
        # The last batch is filled up with the first images.
        order = np.resize(np.arange(count), -(-count // batch_size) * batch_size)
        maps = [
            np.asarray(explain_batch(variables, images[part], targets[part]))
            for part in order.reshape(-1, batch_size)
        ]
        return np.concatenate(maps)[:count]

    return heat


def check_method(model: ResNet, method: str, stage: int | None) -> None:
    """Raise `ValueError` if `explain` cannot explain a network with this method and stage."""
    if not model.num_classes:
        raise ValueError("the network has no head, so there is no class to explain")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but it is {method!r}")
    stages = len(model.stage_sizes)
    if method == "integrated-gradients" and stage is not None:
        raise ValueError("integrated gradients have no stage; leave stage out")
    if stage is not None and not 1 <= stage <= stages:
        raise ValueError(f"stage must be 1 to {stages} for this network, but it is {stage}")


def integrated_gradients(
    model: ResNet,
    variables: Mapping[str, Any],
    images: jax.Array | np.ndarray,
    target: jax.Array | np.ndarray | int | None = None,
    *,
    steps: int = _STEPS,
) -> jax.Array:
    """Return how much each value of some images adds to a logit.

    It is the value times the mean gradient of the logit on the straight line from zeros to the
    image. Zeros are the mean color of the images, because these are normalized. The results of an
    image sum to the difference between the logits of the image and of zeros, up to the error of the
    numerical integration. They are those of Captum's ``IntegratedGradients``.

    Args:
        model: As for `explain`.
        variables: As for `explain`.
        images: As for `explain`.
        target: As for `explain`.
        steps: Number of points on the line at which the gradient is computed (Gauss-Legendre
            quadrature). More points take more time and give smaller errors.

    Returns:
        float32[N, H, W, C], of both signs.

    Raises:
        ValueError: The network has no head, a class does not exist, or ``steps`` is not positive.

    References:
        Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365.
    """
    check_method(model, "integrated-gradients", None)
    _check_target(model, target, len(images))
    if steps < 1:
        raise ValueError(f"steps must be at least 1, but it is {steps}")
    return _integrated_gradients(model, variables, images, target, steps)[0]


def uncropped(
    heat: np.ndarray, box: tuple[float, float, float, float], shape: tuple[int, ...]
) -> np.ndarray:
    """Return the heatmap of a part of an image as one of the whole image.

    Args:
        heat: float32[H, W].
        box: Top, left, height and width of the part, in pixels of the image, as `Preprocessing.box`
            returns them.
        shape: Height and width of the image in pixels.

    Returns:
        float32[height, width]. It is NaN outside the part, which the network has not seen.
    """
    pixels, part = [], []
    for start, side, length, size in zip(box[:2], box[2:], shape, heat.shape, strict=False):
        first = min(max(0, round(start)), length - 1)
        last = max(min(length, round(start + side)), first + 1)
        pixels.append(slice(first, last))
        part.append([min(max(0.0, (edge - start) * size / side), size) for edge in (first, last)])
    (top, bottom), (left, right) = part
    rows, columns = pixels
    whole = np.full(shape[:2], np.nan, np.float32)
    resized = Image.fromarray(np.asarray(heat, np.float32)).resize(
        (columns.stop - columns.start, rows.stop - rows.start),
        Image.Resampling.BILINEAR,
        box=(left, top, right, bottom),
    )
    whole[rows, columns] = np.asarray(resized)
    return whole


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image with its heatmap in color on top.

    The image is unchanged where the heat is 0. It is darkened where the heat is NaN, see
    `uncropped`.

    Args:
        image: uint8[H, W] or uint8[H, W, C] with 1 or 3 channels.
        heat: float[H', W'], 0 to 1. It is resized if it has another size than the image.

    Returns:
        uint8[H, W, 3].
    """
    base = Image.fromarray(np.squeeze(image) if image.shape[-1] == 1 else image).convert("RGB")
    heat = np.asarray(heat, np.float32)
    if heat.shape != (base.height, base.width):
        heat = np.asarray(Image.fromarray(heat).resize(base.size, Image.Resampling.BILINEAR))
    if (unseen := np.isnan(heat)).any():
        darkened = base.point([round(_UNSEEN * level) for level in range(256)] * 3)
        base = Image.composite(darkened, base, Image.fromarray(unseen))
    levels = np.rint(255 * np.nan_to_num(heat)).astype(np.uint8)
    opacity = np.rint(_OPACITY * np.arange(256)).astype(np.uint8)
    colors = Image.fromarray(_PALETTE[levels])
    return np.asarray(Image.composite(colors, base, Image.fromarray(opacity[levels])))


def _check_target(model: ResNet, target: Any, count: int) -> None:
    # While a caller's function is traced, the values are not known.
    if target is None or isinstance(target, jax.core.Tracer):
        return
    target = np.asarray(target)
    if target.shape not in ((), (count,)):
        raise ValueError(
            f"target must be one class, or one for each of {count} images, but its shape is "
            f"{list(target.shape)}"
        )
    if target.size and not 0 <= target.min() <= target.max() < model.num_classes:
        raise ValueError(
            f"target must be 0 to {model.num_classes - 1}, but it is {target.tolist()}"
        )


def _classes(target: Any, logits: jax.Array) -> jax.Array:
    """Return the classes to explain, int32[N]."""
    if target is None:
        return jnp.argmax(logits, axis=-1)
    return jnp.broadcast_to(jnp.asarray(target, jnp.int32), logits.shape[:1])


@partial(jax.jit, static_argnames=("model", "method", "stage"))
def _heatmaps(
    model: ResNet, variables: Any, images: jax.Array, target: Any, method: Method, stage: int
) -> Heatmaps:
    """Return the heatmaps that valid arguments of `heatmaps` ask for."""
    if method == "integrated-gradients":
        evidence, classes = _integrated_gradients(model, variables, images, target, _STEPS)
        evidence = jnp.maximum(jnp.sum(evidence, axis=-1), 0)
        top = jnp.percentile(evidence, _PERCENTILE, axis=(1, 2), keepdims=True)
        top = jnp.where(top > 0, top, jnp.max(evidence, axis=(1, 2), keepdims=True))
        return Heatmaps(jnp.where(top > 0, jnp.minimum(evidence / top, 1), 0), classes)

    def logits_of(activations: jax.Array) -> Any:
        return model.apply(variables, activations, stage, method="forward_from")

    maps: Any = model.apply(variables, images, train=False, method="features")
    activations = maps[f"stage{stage}"]
    logits, gradient_of = jax.vjp(logits_of, activations)
    classes = _classes(target, logits)
    (gradients,) = gradient_of(jax.nn.one_hot(classes, model.num_classes, dtype=logits.dtype))
    activations, gradients = activations.astype(jnp.float32), gradients.astype(jnp.float32)
    if method == "grad-cam":
        weights = jnp.mean(gradients, axis=(1, 2), keepdims=True)
    else:
        weights = _plus_plus_weights(activations, gradients)
    coarse = _scaled(jnp.maximum(jnp.sum(weights * activations, axis=-1), 0))
    heat = jax.image.resize(coarse, images.shape[:3], "linear", antialias=False)
    return Heatmaps(_scaled(heat), classes)


def _plus_plus_weights(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    """Return the weights of the channels in Grad-CAM++, float32[N, 1, 1, C] (equations 5, 19)."""
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
) -> tuple[jax.Array, jax.Array]:
    """Return the integrated gradients, and the classes that they explain."""

    def logits_of(images: jax.Array) -> Any:
        return model.apply(variables, images, train=False)

    images = jnp.asarray(images, jnp.float32)
    classes = _classes(target, logits_of(images))
    chosen = jax.nn.one_hot(classes, model.num_classes)
    gradient_at = jax.grad(lambda images: jnp.sum(logits_of(images) * chosen))
    nodes, weights = np.polynomial.legendre.leggauss(steps)

    def add(total: jax.Array, point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        share, weight = point
        return total + weight * gradient_at(share * images), None

    points = jnp.float32((nodes + 1) / 2), jnp.float32(weights / 2)
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), points)
    return images * total, classes
