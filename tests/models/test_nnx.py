"""Training through Flax NNX gives the values of training in Linen."""

from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from resnet_jax import create_model


def test_steps_of_nnx_are_steps_of_linen() -> None:
    network = create_model("resnet18", num_classes=3, width=4, stage_sizes=(1,))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 16, 16, 3)).astype(np.float32)
    labels = np.arange(6) % 3
    model = nnx.bridge.ToNNX(network, rngs=nnx.Rngs(0))
    model.lazy_init(images, train=False)
    transform = optax.sgd(0.1, momentum=0.9)

    def variables_of(model: Any) -> dict[str, Any]:
        kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat}
        states = {name: nnx.to_pure_dict(nnx.state(model, kind)) for name, kind in kinds.items()}
        return jax.tree.map(np.array, states)

    variables = variables_of(model)
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> jax.Array:
        def loss(model: Any) -> jax.Array:
            logits = model(images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    @jax.jit
    def linen_step(variables: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, updated = network.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = transform.update(gradients, state, variables["params"])
        return value, updated | {"params": optax.apply_updates(variables["params"], updates)}, state

    state = transform.init(variables["params"])
    for _ in range(3):
        expected, variables, state = linen_step(variables, state)
        np.testing.assert_allclose(step(model, optimizer), expected, rtol=1e-5)
    ours, theirs = variables_of(model), jax.tree.map(np.asarray, dict(variables))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for found, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
