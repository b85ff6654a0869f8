"""Multiply-accumulates, against published tables."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from resnet_jax import count_macs, create_model
from resnet_jax.models.complexity import _count

# From timm's results tables: GMAC, and the pixels where they are not 224.
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
    "resnest50d": (5.40, 224),
    "resnest101e": (13.38, 256),
    "resnest200e": (35.69, 320),
    "resnest269e": (77.69, 416),
}
# Summed over the layers of the papers.
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


@pytest.mark.parametrize("name", GIGA)
def test_imagenet_networks_compute_what_is_published(name: str) -> None:
    giga, size = GIGA[name]
    macs = count_macs(create_model(name), (size, size, 3))
    assert macs / 1e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.parametrize("name", MEGA_AT_32)
def test_cifar_networks_compute_what_follows_from_their_layers(name: str) -> None:
    macs = count_macs(create_model(name), (32, 32, 3))
    assert macs / 1e6 == pytest.approx(MEGA_AT_32[name], rel=0.01)


def test_a_grouped_strided_convolution_and_a_product_count_exactly() -> None:
    kernel = jnp.zeros((3, 3, 4, 6))
    images = jnp.zeros((2, 8, 8, 8))

    def program(images: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            images,
            kernel,
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )
        return nn.relu(y).reshape(2, -1) @ jnp.zeros((4 * 4 * 6, 5))

    assert _count(jax.make_jaxpr(program)(images).jaxpr) == (
        2 * 4 * 4 * 6 * 3 * 3 * 4 + 2 * 5 * 4 * 4 * 6
    )


def test_loops_jit_and_remat_are_looked_into() -> None:
    matrix = jnp.zeros((3, 3))

    def program(x: jax.Array) -> jax.Array:
        body = jax.checkpoint(jax.jit(lambda x: x @ matrix))
        return jax.lax.scan(lambda x, _: (body(x), None), x, length=7)[0]

    assert _count(jax.make_jaxpr(program)(matrix).jaxpr) == 7 * 27
