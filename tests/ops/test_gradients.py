"""Hand-written gradients can be turned off, and errors mention this where they cannot be used."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import automatic_gradients, create_model
from resnet_jax.ops.convolution import convolve
from resnet_jax.ops.ordering import together
from resnet_jax.ops.platform import Formulation, formulation
from resnet_jax.ops.pooling import max_pool
from tests.comparison import deviation
from tests.variables import random_variables


@pytest.fixture(scope="module")
def program() -> Callable[[jax.Array], jax.Array]:
    """Return a function from images [2, 16, 16, 3] to the sum of the squares of their logits."""
    model = create_model("resnet26d", width=4, num_classes=3, stage_sizes=(1, 1), act=jnp.tanh)
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    variables = random_variables(model, images)

    def loss(images: jax.Array) -> jax.Array:
        output: Any = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(output[0] ** 2)

    return loss


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, 16, 16, 3))


@pytest.mark.parametrize("way", [None, "parts", "convolution"])
def test_forward_mode_agrees_with_the_written_gradients(
    program: Callable[[jax.Array], jax.Array], images: jax.Array, way: Formulation | None
) -> None:
    gradient = jax.jit(lambda x: jax.grad(program)(x))(images)
    direction = jax.random.normal(jax.random.key(1), images.shape)
    expected = jnp.vdot(gradient, direction)

    def derivatives(x: jax.Array) -> Any:
        _, tangent = jax.jvp(program, (x,), (direction,))
        _, linear = jax.linearize(program, x)
        return tangent, linear(direction), jnp.vdot(jax.grad(program)(x), direction)

    with automatic_gradients():
        if way is None:
            found = jax.jit(derivatives)(images)
        else:
            with formulation(way):
                found = jax.jit(derivatives)(images)
    np.testing.assert_allclose(found, [expected] * 3, rtol=1e-4)


def test_second_derivatives(program: Callable[[jax.Array], jax.Array], images: jax.Array) -> None:
    direction = jax.random.normal(jax.random.key(1), images.shape)

    def along(t: jax.Array) -> jax.Array:
        return program(images + t * direction)

    with automatic_gradients():
        hessian = jax.jit(jax.hessian(along))(0.0)
    # Hand-written gradients can be differentiated again, in reverse mode.
    expected = jax.jit(jax.grad(jax.grad(along)))(0.0)
    np.testing.assert_allclose(hessian, expected, rtol=1e-3)


def test_automatic_gradients_are_not_written() -> None:
    x = jnp.ones((1, 4, 4, 2))
    with automatic_gradients():
        jaxpr = str(jax.make_jaxpr(lambda x: max_pool(x, 3, 2, "SAME"))(x))
    assert "custom_vjp" not in jaxpr
    assert "custom_vjp" in str(jax.make_jaxpr(lambda x: max_pool(x, 3, 2, "SAME"))(x))


def test_the_kernels_are_another_setting() -> None:
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 3))

    def primitives(name: Formulation) -> str:
        with automatic_gradients(), formulation(name):
            return str(jax.make_jaxpr(lambda x: convolve(x, kernel, (1, 1), "VALID"))(x))

    assert "dot_general" in primitives("parts")
    assert "conv_general_dilated" in primitives("convolution")


@pytest.mark.parametrize("remat", [False, True])
def test_forward_mode_says_what_to_type(remat: bool, images: jax.Array) -> None:
    model = create_model("cifar_resnet20", stage_sizes=(1,), width=4, remat=remat)
    variables = random_variables(model, images)

    def apply(images: jax.Array) -> jax.Array:
        return model.apply(variables, images, train=False)

    for differentiate in (
        lambda: jax.jvp(apply, (images,), (images,)),
        lambda: jax.jacfwd(apply)(images),
    ):
        with pytest.raises(TypeError, match=r"resnet_jax\.automatic_gradients\(\)") as caught:
            differentiate()
        assert "custom_vjp" in str(caught.value.__cause__)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(TypeError) as caught:
        together(jnp.ones(2))
    assert "automatic_gradients" not in str(caught.value)


def test_rematerialized_blocks_work_in_forward_mode(images: jax.Array) -> None:
    def tangent(remat: bool) -> jax.Array:
        model = create_model("cifar_resnet20", stage_sizes=(1,), width=4, remat=remat)
        variables = random_variables(model, images)
        with automatic_gradients():
            return jax.jit(
                lambda x: jax.jvp(lambda x: model.apply(variables, x, train=False), (x,), (x,))[1]
            )(images)

    assert deviation(tangent(True), tangent(False)) < 1e-5
