"""How much a network computes, counted from its program and not from a formula."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.models.resnet import ResNet


def count_macs(model: ResNet, image_shape: tuple[int, int, int] = (224, 224, 3)) -> int:
    """Multiply-accumulates of the evaluation of one image; nothing is computed for it.

    Convolutions and matrix products are counted exactly; taps of a kernel that fall on padding
    count too.  An element that is summed into a statistic (GroupNorm, standardised kernels,
    squeeze-and-excitation) counts twice: for the statistic and for its use.  Nothing else counts:
    BatchNorm in evaluation can be folded into the convolution before it.  That is within 1 % of
    timm's published numbers.

    Args:
        model: the network.
        image_shape: (H, W, C).
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(
        lambda key, images: model.init(key, images, train=False), jax.random.key(0), images
    )
    program = jax.make_jaxpr(lambda variables, images: model.apply(variables, images, train=False))(
        variables, images
    )
    return _count(program.jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        match equation.primitive.name:
            case "conv_general_dilated":
                output, kernel = equation.outvars[0].aval, equation.invars[1].aval
                features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
                total += output.size * kernel.size // features
            case "dot_general":
                output, left = equation.outvars[0].aval, equation.invars[0].aval
                (contracted, _), _ = equation.params["dimension_numbers"]
                total += output.size * math.prod(left.shape[axis] for axis in contracted)
            case "reduce_sum":
                total += 2 * equation.invars[0].aval.size
            case _:
                repeats = equation.params.get("length", 1)
                total += repeats * sum(_count(inner) for inner in _inner(equation.params))
    return total


def _inner(params: dict[str, Any]) -> list[Any]:
    """The programs within an equation, such as those of `jax.jit` and `jax.checkpoint`."""
    return [
        getattr(value, "jaxpr", value)
        for value in params.values()
        if hasattr(getattr(value, "jaxpr", value), "eqns")
    ]
