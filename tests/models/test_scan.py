"""A loop over identical blocks gives the results of separate blocks, with a smaller program."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.flatten_util import ravel_pytree

from resnet_jax import (
    BasicBlock,
    ResNet,
    count_macs,
    count_parameters,
    create_model,
    load_weights,
    save_weights,
    stack_blocks,
    unstack_blocks,
)
from resnet_jax.config import FinetuneConfig, SGDConfig
from resnet_jax.data import Batch
from resnet_jax.inference.fold import fold_batch_norm
from resnet_jax.inference.precise_bn import precise_batch_stats
from resnet_jax.ops.platform import formulation
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step
from tests.comparison import deviation, tree_deviation
from tests.variables import Variables, abstract_variables, random_variables

IMAGES = np.random.default_rng(0).standard_normal((4, 16, 16, 3), np.float32)


def outputs(model: ResNet, variables: Variables, images: jax.Array = IMAGES, **kwargs: Any) -> Any:
    """Return logits in evaluation and training, updated statistics and gradients, unstacked."""

    @jax.jit
    def compute(variables: Variables) -> Any:
        def loss_fn(params: Any) -> Any:
            logits, updated = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                **kwargs,
            )
            return jnp.sum(logits**2), (logits, updated)

        grads, (logits, updated) = jax.grad(loss_fn, has_aux=True)(variables["params"])
        evaluated = model.apply(variables, images, train=False)
        return evaluated, logits, unstack_blocks(updated), unstack_blocks({"params": grads})

    return compute(variables)


# The first stage is too short for a loop. The second one has a strided block and a loop over four
# blocks.
SMALL: dict[str, Any] = {"stage_sizes": (1, 5), "width": 8, "num_classes": 5}


def assert_a_loop_computes_what_its_blocks_compute(name: str, fields: dict[str, Any]) -> None:
    unrolled = create_model(name, **SMALL | fields)
    scanned = unrolled.clone(scan=True)
    variables = random_variables(unrolled, IMAGES)
    stacked = stack_blocks(variables)
    shapes = jax.tree.map(jnp.shape, abstract_variables(scanned, IMAGES))
    assert jax.tree.map(jnp.shape, stacked) == shapes
    assert "blocks" in stacked["params"][f"stage{len(unrolled.stage_sizes)}"]

    tolerance = 2**-6 if unrolled.dtype == jnp.bfloat16 else 1e-4
    for ours, theirs in zip(outputs(scanned, stacked), outputs(unrolled, variables), strict=True):
        if jax.tree.leaves(theirs):
            # All gradients are compared as one vector, because the gradient of a bias before a
            # normalization is zero except for rounding.
            assert deviation(ravel_pytree(ours)[0], ravel_pytree(theirs)[0]) < tolerance


# `tests/nightly/models.py` tests more networks.
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("cifar_resnet20", {"remat": True, "bn_group_size": 2}),
        ("cifar_preresnet164", {"freeze_bn": True}),
    ],
)
def test_a_loop_computes_what_its_blocks_compute(name: str, fields: dict[str, Any]) -> None:
    assert_a_loop_computes_what_its_blocks_compute(name, fields)


def test_copies_of_the_layout_are_the_same_bits() -> None:
    model = create_model("resnet34", width=8)
    variables = random_variables(model, IMAGES)
    stacked = stack_blocks(variables)
    assert set(stacked["params"]["stage2"]) == {"block1", "block2", "block3", "block4"}
    assert set(stacked["params"]["stage3"]) == {"block1", "blocks"}
    assert stacked["params"]["stage3"]["blocks"]["conv1"]["kernel"].shape == (5, 3, 3, 32, 32)
    for same in (unstack_blocks(stacked), unstack_blocks(variables)):
        jax.tree.map(np.testing.assert_array_equal, same, variables)
    jax.tree.map(np.testing.assert_array_equal, stack_blocks(stacked), stacked)


def test_paths_of_stacked_parameters_are_an_interface() -> None:
    shapes = abstract_variables(create_model("resnet50", scan=True), IMAGES)
    paths = {"/".join(path): leaf.shape for path, leaf in flatten_dict(shapes).items()}
    # The stem and each convolution of the stages have a kernel, scale, bias, mean and variance. The
    # head has a kernel and a bias.
    assert len(paths) == (1 + (4 + 2 * 3) + (4 + 3 * 3) + (4 + 3) + (4 + 2 * 3)) * 5 + 2
    assert paths["params/stage1/block1/shortcut/conv/kernel"] == (1, 1, 64, 256)
    assert paths["params/stage1/block2/conv1/kernel"] == (1, 1, 256, 64)
    assert paths["params/stage3/blocks/norm3/scale"] == (5, 1024)
    assert paths["batch_stats/stage3/blocks/norm1/var"] == (5, 256)


def test_variables_of_the_other_kind_are_named() -> None:
    unrolled, scanned = (
        create_model("cifar_resnet20", **SMALL, scan=scan) for scan in (False, True)
    )
    variables = random_variables(unrolled, IMAGES)
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    for model, wrong, message in (
        (
            scanned,
            variables,
            r"stage2 .* with scan=False; convert them with stack_blocks\(variables\)",
        ),
        (
            unrolled,
            stack_blocks(variables),
            r"scan=True; convert them with unstack_blocks\(variables\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(partial(model.apply, train=False), wrong, images)


def test_four_blocks_are_no_loop() -> None:
    plain, scanned = (
        create_model("cifar_resnet20", stage_sizes=(3, 4), scan=scan) for scan in (False, True)
    )
    shapes, expected = (
        jax.tree.map(jnp.shape, abstract_variables(model, IMAGES)) for model in (scanned, plain)
    )
    assert shapes == expected


def test_every_block_of_a_loop_starts_from_values_of_its_own() -> None:
    model = create_model("cifar_resnet20", scan=True, stage_sizes=(5,))
    params = jax.jit(partial(model.init, train=False))(jax.random.key(0), IMAGES)["params"]
    first, second, *_ = params["stage1"]["blocks"]["conv1"]["kernel"]
    assert deviation(first, second) > 0.1
    np.testing.assert_allclose([first.std(), second.std()], (2 / (9 * 16)) ** 0.5, rtol=0.05)


def test_masks_and_feature_maps_pass_through_the_loop() -> None:
    unrolled = create_model("cifar_resnet20", **SMALL)
    scanned = unrolled.clone(scan=True)
    variables = random_variables(unrolled, IMAGES)
    mask = jnp.arange(4) < 3

    @partial(jax.jit, static_argnums=0)
    def features(model: ResNet, variables: Variables) -> Any:
        maps, updated = model.apply(
            variables, IMAGES, train=True, mask=mask, mutable=["batch_stats"], method="features"
        )
        return maps, unstack_blocks(updated)

    ours, theirs = features(scanned, stack_blocks(variables)), features(unrolled, variables)
    assert tree_deviation(ours, theirs) < 1e-5


def test_paths_are_dropped_at_the_rate_of_each_block() -> None:
    model = create_model("cifar_resnet20", stage_sizes=(5,), width=4, scan=True, drop_path_rate=0.8)
    variables = stack_blocks(random_variables(model.clone(scan=False), IMAGES))
    # Without activations and with frozen statistics, a block whose path is dropped returns its
    # input exactly.
    model = model.clone(act=lambda x: x, freeze_bn=True)
    images = jnp.asarray(np.random.default_rng(2).standard_normal((512, 2, 2, 3)), jnp.float32)

    @jax.jit
    def outputs(variables: Variables) -> Any:
        _, captured = model.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": jax.random.key(3)},
            capture_intermediates=lambda module, _: module.name in ("block1", "blocks"),
            mutable=["intermediates"],
        )
        return captured["intermediates"]["stage1"]

    captured = outputs(variables)
    (first,), (others,) = (captured[name]["__call__"] for name in ("block1", "blocks"))
    for i, rate in enumerate((0.2, 0.4, 0.6, 0.8)):
        before = first if i == 0 else others[i - 1]
        dropped = np.mean(np.all(others[i] == before, axis=(1, 2, 3)))
        # The bound is three standard deviations.
        assert abs(dropped - rate) < 3 * (rate * (1 - rate) / 512) ** 0.5


def test_weights_go_in_and_out(tmp_path: Path) -> None:
    unrolled = create_model("resnet34", width=8, num_classes=5, in_channels=3)
    scanned = unrolled.clone(scan=True)
    variables = random_variables(unrolled, IMAGES)
    for name, model, given in (
        ("unrolled", unrolled, variables),
        ("scanned", scanned, stack_blocks(variables)),
    ):
        save_weights(model, given, tmp_path / f"{name}.safetensors")
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("unrolled", "scanned")]
    assert files[0] == files[1]
    for source in (tmp_path / "scanned.safetensors", variables, stack_blocks(variables)):
        loaded = load_weights(scanned, source)
        jax.tree.map(np.testing.assert_array_equal, loaded, stack_blocks(variables))
        jax.tree.map(np.testing.assert_array_equal, load_weights(unrolled, source), variables)


def test_blocks_that_differ_are_no_loop() -> None:
    # The last block has an InstanceNorm more, which has no statistics.
    last = partial(BasicBlock, ibn="b")
    unrolled = create_model(
        "cifar_resnet20", **SMALL | {"block": (BasicBlock, (BasicBlock,) * 4 + (last,))}
    )
    variables = random_variables(unrolled, IMAGES)
    assert jax.tree.structure(stack_blocks(variables)) == jax.tree.structure(variables)
    scanned = unrolled.clone(scan=True)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(
            jax.jit(partial(model.apply, train=False))(variables, IMAGES[:1])
            for model in (scanned, unrolled)
        ),
    )


def test_what_is_counted_is_the_same() -> None:
    for name in ("resnet34", "resnest50d"):
        unrolled, scanned = (create_model(name, scan=scan) for scan in (False, True))
        assert count_parameters(scanned) == count_parameters(unrolled)
        assert count_macs(scanned, (64, 64, 3)) == count_macs(unrolled, (64, 64, 3))


def test_statistics_are_folded_and_computed_afresh() -> None:
    unrolled = create_model("cifar_resnet20", **SMALL)
    scanned = unrolled.clone(scan=True)
    variables = random_variables(unrolled, IMAGES)
    stacked = stack_blocks(variables)

    precise = precise_batch_stats(scanned, stacked, [IMAGES])
    expected = precise_batch_stats(unrolled, variables, [IMAGES])
    assert tree_deviation(unstack_blocks(precise), expected) < 1e-5

    folded, folded_variables = fold_batch_norm(scanned, stacked)
    assert folded.scan
    assert "blocks" in folded_variables["params"]["stage2"]
    logits = jax.jit(partial(scanned.apply, train=False))(stacked, IMAGES)
    folded_logits = jax.jit(partial(folded.apply, train=False))(folded_variables, IMAGES)
    assert deviation(folded_logits, logits) < 1e-5


@pytest.mark.parametrize(
    ("config", "finetune"),
    [
        (SGDConfig(), FinetuneConfig(layer_decay=0.7)),
        (
            SGDConfig(),
            FinetuneConfig(freeze=("stem", "stage[12]/.*norm", "stage3/block"), layer_decay=0.7),
        ),
        (SGDConfig(weight_decay=0.1, decay_on="all"), FinetuneConfig()),
    ],
)
def test_the_optimizer_makes_the_same_steps(config: SGDConfig, finetune: FinetuneConfig) -> None:
    params = random_variables(create_model("cifar_resnet32", width=4), IMAGES)["params"]
    grads = jax.tree.map(lambda leaf: 0.1 * leaf + 0.01, params)

    @jax.jit
    def step(params: Any, grads: Any) -> Any:
        optimizer = create_optimizer(config, 0.1, finetune)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        return updates

    (stacked_params, stacked_grads), updates = (
        [stack_blocks({"params": tree})["params"] for tree in (params, grads)],
        step(params, grads),
    )
    stacked = unstack_blocks({"params": step(stacked_params, stacked_grads)})["params"]
    assert tree_deviation(stacked, updates) < 1e-6


def test_blocks_of_one_array_are_frozen_together() -> None:
    variables = random_variables(create_model("cifar_resnet32", width=4), IMAGES)
    params = stack_blocks(variables)["params"]
    optimizer = create_optimizer(
        SGDConfig(), 0.1, FinetuneConfig(freeze=("stage1", "stage2/block[12]"))
    )
    with pytest.raises(
        ValueError,
        match=r"match stage2/block2/.* and not stage2/block3/.* set model\.scan to False$",
    ):
        optimizer.init(params)


def number_of_equations(jaxpr: Any) -> int:
    return len(jaxpr.eqns) + sum(
        number_of_equations(inner)
        for equation in jaxpr.eqns
        for inner in jax.tree.leaves(
            [value for value in equation.params.values() if hasattr(value, "eqns")],
            is_leaf=lambda value: hasattr(value, "eqns"),
        )
    )


def train_step_size(depth: int, **fields: Any) -> int:
    model = create_model(f"cifar_resnet{depth}", **fields)
    optimizer = create_optimizer(SGDConfig(), 0.1)
    state = jax.eval_shape(
        lambda key: create_train_state(key, model, optimizer, (32, 32, 3)), jax.random.key(0)
    )
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    batch = Batch(
        jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),
        jax.ShapeDtypeStruct((2,), jnp.int32),
        jax.ShapeDtypeStruct((2,), bool),
    )
    return number_of_equations(jax.make_jaxpr(step)(state, batch, jax.random.key(1)))


@pytest.mark.parametrize("way", ["convolution", "parts"])
def test_the_program_of_a_deep_network_is_that_of_a_shallow_one(way: Any) -> None:
    with formulation(way):
        assert train_step_size(1202, scan=True) == train_step_size(110, scan=True)


def test_the_program_of_an_unrolled_network_grows_with_it() -> None:
    assert train_step_size(110) > 4 * train_step_size(32, scan=True)
