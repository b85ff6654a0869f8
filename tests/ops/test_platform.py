"""A program exported for several platforms contains the formulation of each."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import create_model
from resnet_jax.ops import convolution, platform
from resnet_jax.ops.convolution import convolve
from resnet_jax.ops.platform import formulation
from resnet_jax.ops.pooling import max_pool
from tests.variables import abstract_variables

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(program: Callable[..., Any], *inputs: Any) -> str:
    """Return the StableHLO of a program that is traced on this machine for all platforms."""
    return jax.export.export(jax.jit(program), platforms=PLATFORMS)(*inputs).mlir_module()


def operations(module: str, name: str) -> Counter[str]:
    """Count the StableHLO operations that one platform executes.

    The platform is chosen by a ``case`` on its index.  Only the branch for this platform is
    counted, and only functions that are called.
    """
    functions = re.findall(r"^  func\.func .*?@(\w+)\((.*?)^  }", module, re.DOTALL | re.MULTILINE)
    bodies = {function: body.splitlines() for function, body in functions}
    found: Counter[str] = Counter()

    def run(function: str) -> None:
        lines = iter(bodies[function])
        values: dict[str, int] = {}

        def walk(*, counted: bool) -> tuple[str, str]:
            """Read a region to its end; return the name of its result and its last line."""
            returned = ""
            for line in lines:
                if re.match(r"\s*}, {|\s*}\) :", line):
                    return returned, line.strip()
                index = re.search(r"(%arg\d+): tensor<i32> {jax.global_constant = .*", line)
                constant = re.match(r"\s*(%\S+) = stablehlo.constant dense<(\d+)> : \S+i32>", line)
                case = re.match(r'\s*(%\w+)\S* = "stablehlo.case"\((%\S+)\)', line)
                if index:
                    values[index[1]] = PLATFORMS.index(name)
                if constant:
                    values[constant[1]] = int(constant[2])
                if result := re.match(r"\s*stablehlo.return (%\w+)", line):
                    returned = result[1]
                elif counted and not case:
                    found.update(re.findall(r"stablehlo\.\w+", line))
                    for callee in re.findall(r"call @(\w+)", line):
                        run(callee)
                if "({" not in line:
                    continue
                # These are the regions of a case, or of another operation such as a reduction.
                branch, last = 0, ""
                while not last.startswith("})"):
                    taken = case is None or branch == values[case[2]]
                    value, last = walk(counted=counted and taken)
                    if case and taken and value in values:
                        values[case[1]] = values[value]
                    branch += 1
            return returned, ""

        walk(counted=True)

    run("main")
    for uninteresting in ("constant", "return"):
        del found[f"stablehlo.{uninteresting}"]
    return found


def with_gradients(program: Callable[..., jax.Array]) -> Callable[..., Any]:
    def compute(*inputs: Any) -> Any:
        y, transposed = jax.vjp(program, *inputs)
        return y, transposed(y)

    return compute


CONVOLUTIONS = {
    "3x3": ((4, 8, 8, 32), (3, 3, 32, 16), 1),
    "strided": ((4, 8, 8, 32), (3, 3, 32, 16), 2),
    "1x1": ((4, 8, 8, 32), (1, 1, 32, 16), 2),
    "tiny image": ((4, 2, 2, 8), (3, 3, 8, 16), 1),
}


@pytest.mark.parametrize("shapes", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_an_exported_convolution_is_that_of_each_platform(
    shapes: Any, gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    jax.clear_caches()
    monkeypatch.setattr(convolution, "_SLICE_BYTES", 2**13)
    image, kernel, stride = shapes
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (image, kernel)]
    pad = kernel[0] // 2

    def program(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, (stride, stride), ((pad, pad), (pad, pad)))

    compute = with_gradients(program) if gradient else program
    module = exported(compute, *inputs)
    # If a formulation is requested, the program does not choose by platform.
    ways: dict[str, Any] = {"cpu": "parts", "cuda": "convolution", "tpu": "convolution"}
    for name in PLATFORMS:
        with formulation(ways[name]):
            # JAX caches the traces of functions, so each setting needs a new function.
            expected = operations(exported(lambda *x: compute(*x), *inputs), name)
        assert operations(module, name) == expected
    for name in ("cuda", "tpu"):
        found = operations(module, name)
        assert found["stablehlo.convolution"] == (3 if gradient else 1)
        assert "stablehlo.dot_general" not in found
        assert "stablehlo.while" not in found
    products = operations(module, "cpu")["stablehlo.dot_general"]
    assert (products > 0) == (shapes in (CONVOLUTIONS["1x1"], CONVOLUTIONS["tiny image"]))
    if gradient and not products:
        assert operations(module, "cpu")["stablehlo.while"] == 1
    jax.clear_caches()


def test_exported_pooling_is_that_of_each_platform() -> None:
    program = with_gradients(partial(max_pool, size=3, stride=2, padding=((1, 1), (1, 1))))
    module = exported(program, jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32))
    windows = {"stablehlo.reduce_window", "stablehlo.select_and_scatter"}
    for name in ("cuda", "tpu"):
        assert windows < operations(module, name).keys()
    assert not windows & operations(module, "cpu").keys()


@pytest.mark.parametrize("remat", [False, True])
def test_an_exported_network_has_the_convolutions_of_each_platform(remat: bool) -> None:
    model = create_model("resnet26", num_classes=10, width=16, stage_sizes=(1, 1), remat=remat)
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    variables = abstract_variables(model, images)

    def loss(params: Any, variables: Any, images: jax.Array) -> jax.Array:
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(logits**2)

    module = exported(jax.grad(loss), variables["params"], variables, images)
    # There are the convolution of the stem, and in each of two blocks three convolutions and a
    # projection. Each has an output, a gradient of the kernel and a gradient of the input, except
    # for the gradient of the images.
    convolutions = 3 * (1 + 2 * 4) - 1
    # With remat, all convolutions of a block may be computed a second time.
    again = 2 * 4 if remat else 0
    for name in ("cuda", "tpu"):
        found = operations(module, name)
        assert convolutions <= found["stablehlo.convolution"] <= convolutions + again
        assert (found["stablehlo.convolution"] > convolutions) == remat
        assert found["stablehlo.optimization_barrier"] == (2 if remat else 0)
        assert found["stablehlo.select_and_scatter"] == 1
        # These are the product of the head, and the gradients of its kernel and of its input.
        assert found["stablehlo.dot_general"] == 3
    found = operations(module, "cpu")
    assert found["stablehlo.dot_general"] > 3
    assert "stablehlo.select_and_scatter" not in found


def test_an_exported_program_runs_here_as_the_jitted_one() -> None:
    model = create_model("cifar_resnet20", stage_sizes=(1, 1), width=8)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = model.init(jax.random.key(1), images, train=False)
    apply = jax.jit(partial(model.apply, train=False))
    artifact = jax.export.export(apply, platforms=PLATFORMS)(variables, images)
    np.testing.assert_allclose(
        artifact.call(variables, images), apply(variables, images), rtol=1e-5, atol=1e-6
    )


def test_settings_hold_within_their_context_alone() -> None:
    x = jnp.zeros((1, 8, 8, 3))
    assert (platform.chosen_program(x), platform.num_devices()) == ("by platform", 1)
    with formulation("parts"), platform.devices(8):
        assert (platform.chosen_program(x), platform.num_devices()) == ("cpu", 8)
        with formulation("product"), platform.devices(2):
            assert (platform.chosen_program(x), platform.num_devices()) == ("default", 2)
        assert (platform.chosen_program(x), platform.num_devices()) == ("cpu", 8)
    assert (platform.chosen_program(x), platform.num_devices()) == ("by platform", 1)


def test_a_gradient_keeps_the_formulation_of_its_function() -> None:
    def traced_apart(x: jax.Array) -> jax.Array:
        with formulation("convolution"):
            y, transposed = jax.vjp(lambda x: max_pool(x, 3, 2, "SAME"), x)
        return transposed(y)[0]

    assert "select_and_scatter" in jax.jit(traced_apart).lower(jnp.ones((1, 8, 8, 2))).as_text()


def test_networks_do_not_ask_which_machine_traces_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("asked for the machine")

    model: nn.Module = create_model("resnet26", num_classes=10, width=8, remat=True)
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    variables = abstract_variables(model, images)
    monkeypatch.setattr(jax, "default_backend", refuse)
    monkeypatch.setattr(jax, "device_count", refuse)
    monkeypatch.setattr(jax, "devices", refuse)

    def loss(variables: Any, images: jax.Array) -> jax.Array:
        output: Any = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(output[0])

    jax.make_jaxpr(jax.grad(loss))(variables, images)
