"""The size and the cost of a network, counted from its traced program."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.models.resnet import ResNet
from resnet_jax.ops.platform import formulation


def count_parameters(model: ResNet, image_shape: tuple[int, int, int] = (224, 224, 3)) -> int:
    """Return the number of trainable parameters, without running statistics.

    Args:
        model: the network.
        image_shape: (H, W, C) of an image.  Only the number of channels changes the result.
    """
    variables = _abstract_variables(_traced_once(model), _abstract_image(image_shape))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def count_macs(model: ResNet, image_shape: tuple[int, int, int] = (224, 224, 3)) -> int:
    """Return the number of multiply-accumulates that the evaluation of one image takes.

    The program is traced and not run.  Convolutions and matrix products are counted exactly,
    including kernel taps that fall on padding.  An element that is summed into a statistic
    (GroupNorm, standardized kernels, squeeze-and-excitation) counts twice, for the statistic and
    for its use.  Nothing else counts, because BatchNorm in evaluation can be folded into the
    convolution before it.  timm counts normalization by the rules of fvcore; the results agree
    within 1 %.

    Args:
        model: the network.
        image_shape: (H, W, C) of the image.
    """
    model = _traced_once(model)
    # One trace has the variables and the evaluation.  Initializers multiply only elementwise.
    evaluate = jax.make_jaxpr(lambda key, image: model.init_with_output(key, image, train=False))
    # Other formulations of a convolution have extra operations, which the network does not define.
    with formulation("convolution"):
        return _count(evaluate(jax.random.key(0), _abstract_image(image_shape)))


def _traced_once(model: ResNet) -> ResNet:
    """Return the same network as loops, so that one of several equal blocks is traced."""
    return model.clone(scan=True)


def _abstract_image(shape: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _abstract_variables(model: ResNet, image: jax.ShapeDtypeStruct) -> Any:
    return jax.eval_shape(
        lambda key, image: model.init(key, image, train=False), jax.random.key(0), image
    )


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
            case "cond":
                # One branch runs, and it is not known which one.  The largest is an upper bound.
                total += max(_count(branch) for branch in equation.params["branches"])
            case _:
                # `jax.lax.scan` has a length.  The programs of all other equations run once, or an
                # unknown number of times.
                repeats = equation.params.get("length", 1)
                total += repeats * sum(_count(inner) for inner in _inner(equation.params))
    return total


def _inner(params: dict[str, Any]) -> list[Any]:
    """Return the programs within an equation such as `jax.jit` or `jax.checkpoint`."""
    return [value for value in params.values() if hasattr(value, "eqns")]
