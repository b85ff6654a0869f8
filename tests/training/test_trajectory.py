"""Training follows PyTorch step by step: gradients, momentum, weight decay and BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.training.evaluate import make_eval_step
from resnet_jax.training.metrics import mean_metrics
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import make_train_step
from tests.comparison import deviation
from tests.golden import golden
from tests.golden.running_variance import unbiased


@pytest.mark.parametrize(
    "entry", golden.trajectories(), ids=lambda entry: f"{entry['arch']}-{entry['image_seed']}"
)
def test_sgd_follows_pytorch(entry: golden.Trajectory) -> None:
    model = create_model(entry["arch"], num_classes=entry["num_classes"])
    initial = load_weights(model, golden.state_dict(entry["arch"], entry["num_classes"]))
    optimizer = create_optimizer(
        SGDConfig(
            momentum=entry["momentum"],
            nesterov=entry["nesterov"],
            weight_decay=entry["weight_decay"],
            decay_on="all",
        ),
        entry["learning_rate"],
    )
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=initial["params"],
        batch_stats=initial["batch_stats"],
        opt_state=optimizer.init(initial["params"]),
    )
    # The images are not augmented.
    train_step = jax.jit(
        make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    )
    losses = []
    for step in range(entry["steps"]):
        images = golden.images(entry["batch"], entry["image_size"], entry["image_seed"] + step)
        labels = golden.labels(entry["batch"], entry["num_classes"], entry["label_seed"] + step)
        batch = Batch(
            jnp.asarray(images), jnp.asarray(labels, jnp.int32), jnp.ones(len(labels), bool)
        )
        state, metrics = train_step(state, batch, jax.random.key(0))
        losses.append(mean_metrics([metrics])["loss"])
    np.testing.assert_allclose(losses, entry["losses"], rtol=2e-3)

    variables = unbiased(model, state.variables, initial, images.shape, entry["steps"])
    images = golden.images(entry["batch"], entry["image_size"], entry["eval_seed"])
    eval_step = jax.jit(make_eval_step(model, lambda images: images))
    logits = eval_step(
        state.variables | {"batch_stats": variables["batch_stats"]}, batch._replace(image=images)
    ).logits
    assert deviation(logits, entry["eval_logits"]) < 2e-2
