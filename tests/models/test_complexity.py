"""Counted multiply-accumulates and parameters equal published tables."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from resnet_jax import count_macs, create_model
from resnet_jax.models.complexity import _count, count_parameters
from resnet_jax.models.layers import conv
from tests.golden import golden

# GMACs from timm's results tables, with the height and width of the images in pixels.
GIGA: dict[str, tuple[float, int]] = {
    "resnet18": (1.82, 224),
    "resnet34": (3.67, 224),
    "resnet50": (4.11, 224),
    "resnet101": (7.83, 224),
    "resnet152": (11.56, 224),
    "resnet200": (15.07, 224),
    "resnext50_32x4d": (4.26, 224),
    "resnext101_32x8d": (16.48, 224),
    "resnext101_64x4d": (15.52, 224),
    "wide_resnet50_2": (11.43, 224),
    "wide_resnet101_2": (22.80, 224),
    "resnet50d": (4.35, 224),
    "seresnet50": (4.11, 224),
    "ecaresnet50d": (4.35, 224),
    "skresnet18": (1.82, 224),
    "skresnet34": (3.67, 224),
    "skresnet50": (4.11, 224),
    "resnet50_gn": (4.14, 224),
    "resnetblur50": (5.16, 224),
    "resnetaa50": (5.15, 224),
    "resnetrs50": (4.48, 224),
    "resnetrs101": (6.04, 192),
    "resnetrs152": (15.59, 256),
    "resnetrs200": (20.18, 256),
    "resnetrs270": (27.06, 256),
    "resnetrs350": (43.67, 288),
    "resnetrs420": (64.20, 320),
    "resnetv2_50": (4.11, 224),
    "resnetv2_101": (7.83, 224),
    "resnetv2_152": (11.55, 224),
    "resnetv2_50x1_bit": (4.23, 224),
    "resnetv2_50x3_bit": (37.06, 224),
    "resnetv2_101x1_bit": (8.04, 224),
    "resnetv2_101x3_bit": (71.23, 224),
    "resnetv2_152x2_bit": (46.95, 224),
    "resnetv2_152x4_bit": (186.90, 224),
    "resnetv2_50d_evos": (4.33, 224),
    "senet154": (20.77, 224),
    "ecaresnet50d_pruned": (2.53, 224),
    "res2net50_26w_4s": (4.28, 224),
    "res2next50": (4.20, 224),
    "resnest50d": (5.40, 224),
    "resnest101e": (13.38, 256),
    "resnest200e": (35.69, 320),
    "resnest269e": (77.69, 416),
}
# Sums over the layers that the papers describe.
MEGA_AT_32 = {
    "cifar_resnet20": 40.6,
    "cifar_resnet32": 68.9,
    "cifar_resnet44": 97.2,
    "cifar_resnet56": 125.5,
    "cifar_resnet110": 252.9,
    "cifar_resnet1202": 2829,
    "cifar_preresnet110": 252.9,
    "cifar_preresnet164": 244,
    "cifar_preresnet1001": 1488,
    "wrn_28_10": 5243,
}


# One network of each kind, and the deepest one of the kinds with the most blocks.
# `tests/nightly/models.py` tests all of them.
REPRESENTATIVES = (
    "resnet18",
    "resnet152",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "resnet50d",
    "seresnet50",
    "ecaresnet50d",
    "ecaresnet50d_pruned",
    "skresnet34",
    "resnet50_gn",
    "resnetblur50",
    "resnetaa50",
    "resnetrs420",
    "resnetv2_50",
    "resnetv2_152x4_bit",
    "resnetv2_50d_evos",
    "senet154",
    "res2net50_26w_4s",
    "res2next50",
    "resnest50d",
    "resnest269e",
)


def assert_as_many_macs_as_published(name: str, giga: float, size: int) -> None:
    assert count_macs(create_model(name), (size, size, 3)) / 1e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.parametrize(
    ("name", "giga", "size"),
    [(name, *GIGA[name]) for name in REPRESENTATIVES] + [("resnetrs50", 2.29, 160)],
)
def test_imagenet_networks_compute_what_is_published(name: str, giga: float, size: int) -> None:
    assert_as_many_macs_as_published(name, giga, size)


@pytest.mark.parametrize("name", MEGA_AT_32)
def test_cifar_networks_compute_what_follows_from_their_layers(name: str) -> None:
    assert count_macs(create_model(name), (32, 32, 3)) / 1e6 == pytest.approx(
        MEGA_AT_32[name], rel=0.01
    )


@pytest.mark.parametrize("name", ["resnet18", "seresnext50_32x4d", "resnetv2_50x1_bit"])
def test_parameters_are_those_of_the_reference(name: str) -> None:
    assert count_parameters(create_model(name)) == golden.members()[name]["parameters"]


def test_parameters_follow_the_channels_of_the_image_and_not_its_size() -> None:
    model = create_model("cifar_resnet20")
    three, one = (count_parameters(model, (32, 32, channels)) for channels in (3, 1))
    assert three - one == 3 * 3 * 2 * 16
    assert count_parameters(model, (48, 40, 3)) == three


def test_parameters_of_a_deep_network_are_counted_without_tracing_each_block() -> None:
    traced = {}
    for depth in (5, 50):
        layers = []

        def counted(*arguments: Any, layers: list = layers, **options: Any) -> Any:
            layers.append(arguments)
            return conv(*arguments, **options)

        model = create_model("cifar_resnet20", stage_sizes=(depth,) * 3, conv=counted)
        more = 2 * sum(9 * width**2 + 2 * width for width in (16, 32, 64))
        twenty = count_parameters(create_model("cifar_resnet20"))
        assert count_parameters(model) == twenty + (depth - 3) * more
        traced[depth] = len(layers)
    assert traced[5] == traced[50]


def macs(program: Callable[..., object], *arguments: jax.Array | bool) -> int:
    return _count(jax.make_jaxpr(program)(*arguments))


@pytest.mark.parametrize(
    ("stride", "dilation", "groups", "pixels"),
    [(1, 1, 1, 9 * 7), (2, 1, 1, 5 * 4), (1, 2, 1, 9 * 7), (1, 1, 4, 9 * 7), (2, 1, 8, 5 * 4)],
)
def test_a_convolution_counts_every_tap(
    stride: int, dilation: int, groups: int, pixels: int
) -> None:
    images = jnp.zeros((2, 9, 7, 8))
    kernel = jnp.zeros((3, 3, 8 // groups, 16))

    def program(images: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            [(dilation, dilation)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    assert macs(program, images) == 2 * pixels * 16 * 3 * 3 * 8 // groups


def test_a_dense_layer_and_a_batch_of_products_count_exactly() -> None:
    assert macs(lambda x: x @ jnp.zeros((5, 3)), jnp.zeros((2, 5))) == 2 * 5 * 3
    left, right = jnp.zeros((4, 2, 5)), jnp.zeros((4, 5, 3))
    assert macs(jnp.matmul, left, right) == 4 * 2 * 5 * 3


MATRIX = jnp.zeros((3, 3))


def product(x: jax.Array) -> jax.Array:
    return x @ MATRIX


custom_jvp, custom_vjp = jax.custom_jvp(product), jax.custom_vjp(product)
custom_jvp.defjvp(lambda primals, tangents: (product(*primals), product(*tangents)))
custom_vjp.defvjp(lambda x: (product(x), None), lambda _, cotangent: (cotangent,))


@pytest.mark.parametrize(
    "program",
    [jax.jit(product), jax.checkpoint(product), custom_jvp, custom_vjp],
    ids=["jit", "remat", "custom_jvp", "custom_vjp"],
)
def test_programs_within_programs_count_once(program: Callable[[jax.Array], jax.Array]) -> None:
    assert macs(program, MATRIX) == 27


def test_a_loop_counts_as_often_as_it_runs() -> None:
    def program(x: jax.Array) -> jax.Array:
        body = jax.checkpoint(jax.jit(product))
        return jax.lax.scan(lambda x, _: (body(x), None), x, length=7)[0]

    assert macs(program, MATRIX) == 7 * 27


def test_only_the_most_expensive_branch_counts() -> None:
    def program(choice: jax.Array | bool, x: jax.Array) -> jax.Array:
        return jax.lax.cond(choice, product, lambda x: product(product(x)), x)

    assert macs(program, True, MATRIX) == 2 * 27


@pytest.mark.parametrize("name", ["resnet18", "resnest14d"])
def test_recomputation_in_training_does_not_count(name: str) -> None:
    plain, remat = (create_model(name, remat=remat) for remat in (False, True))
    assert count_macs(plain, (32, 32, 3)) == count_macs(remat, (32, 32, 3))
