"""All that stays the same throughout a run, made from its configuration."""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from resnet_jax.config import ConfigError, TrainConfig
from resnet_jax.data import Dataset, Split, open_dataset
from resnet_jax.models import ResNet, create_model
from resnet_jax.ops import platform
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.optim import create_optimizer, frozen
from resnet_jax.training.process.distributed import gather
from resnet_jax.training.rundir.digests import describe_arrays, json_digest
from resnet_jax.training.sharding import (
    batch_sharded,
    make_mesh,
    replicate,
    replicated,
    state_shardings,
)
from resnet_jax.training.state import TrainState, create_train_state, state_of
from resnet_jax.training.step import (
    EvalStep,
    TrainStep,
    make_ema_decay,
    make_eval_step,
    make_train_step,
)
from resnet_jax.weights import load_weights


def check(config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> tuple[ResNet, Mesh]:
    """The model and the mesh, or the reason why there can be none; before any real work.

    Args:
        config: the experiment.
        devices: to train on; all of them by default.

    Raises:
        ConfigError: the devices cannot share the global batch evenly, or the processes do not
            have equally many of them.
        ValueError: the model is unknown, or has no such parameters to freeze.
    """
    mesh = make_mesh(devices)
    config.check_devices(mesh.size)
    if mesh.size != mesh.local_mesh.size * jax.process_count():
        raise ConfigError(
            f"process {jax.process_index()} has {mesh.local_mesh.size} of {mesh.size} devices; all "
            f"{jax.process_count()} processes must have equally many"
        )
    model = create_model(
        config.model.name,
        zero_init_residual=config.model.zero_init_residual,
        bn_decay=config.model.bn_decay,
        bn_epsilon=config.model.bn_epsilon,
        bn_group_size=config.statistics_size(mesh.size),
        freeze_bn=config.model.freeze_bn,
        dropout_rate=config.model.dropout_rate,
        block_dropout_rate=config.model.block_dropout_rate,
        drop_path_rate=config.model.drop_path_rate,
        remat=config.model.remat,
        scan=config.model.scan,
        dtype=jnp.dtype(config.model.dtype),
    )
    if config.finetune.freeze:
        variables = jax.eval_shape(
            lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False), jax.random.key(0)
        )
        frozen(variables["params"], config.finetune.freeze)
    return model, mesh


def starting_variables(
    config: TrainConfig, model: ResNet, key: jax.Array | None = None
) -> dict[str, Any]:
    """The variables in ``config.model.weights``, as the model has them, on the host.

    Args:
        config: it must name some.
        model: the network; where it has other classes than the weights, its head is new.
        key: of the new head.

    Raises:
        ConfigError: the source cannot be read, or is of another network; in one line.
    """
    source = config.model.weights
    assert source is not None
    try:
        variables = load_weights(model, source, new_head="if_needed", key=key)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"model.weights {source}: {' '.join(str(error).split())}") from error
    return jax.tree.map(np.asarray, variables)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A configuration with its model, devices, data and optimizer.

    Attributes:
        config: the experiment.
        model: the network.
        mesh: the devices.
        dataset: the images.
        schedule: learning rate by step.
        optimizer: built from the configuration.
        total_steps: of the whole run.
    """

    config: TrainConfig
    model: ResNet
    mesh: Mesh
    dataset: Dataset
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    total_steps: int

    @classmethod
    def create(cls, config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> Self:
        """Checks as `check` does, then opens the data, which decide the number of classes."""
        model, mesh = check(config, devices)
        dataset = open_dataset(config.data)
        model = model.clone(num_classes=len(dataset.class_names))
        steps = partial(config.steps, train_examples=len(dataset.train))
        total_steps = steps(config.epochs)
        schedule = config.schedule.create(
            config.optimizer.learning_rate, epochs=config.epochs, steps=steps
        )
        return cls(
            config=config,
            model=model,
            mesh=mesh,
            dataset=dataset,
            schedule=schedule,
            optimizer=create_optimizer(config.optimizer, schedule, config.finetune),
            total_steps=total_steps,
        )

    def epochs_done(self, step: int) -> float:
        """How often the training split has been passed over when so many steps are done."""
        return step * self.config.batch_size / len(self.dataset.train)

    def evaluation_due(self, step: int) -> bool:
        """Whether the interval of evaluations is full with this step, or the run is."""
        done, before = (
            self.epochs_done(count) // self.config.evaluate_every_epochs
            for count in (step, step - 1)
        )
        return done > before or step == self.total_steps

    @property
    def step_key(self) -> jax.Array:
        """The key of all randomness within steps."""
        # `device_put` cannot reach the devices of other processes; a jitted function can.
        return jax.jit(jax.random.key, out_shardings=replicated(self.mesh))(self.config.seed)

    def create_state(self) -> TrainState:
        """The state before the first step, on all devices.

        Raises:
            ConfigError: it starts from weights, and they cannot be read or are of another network,
                or the processes have different ones.
        """
        # 2**32 - 1 is no step number, so this key is used nowhere else.
        key = jax.random.fold_in(jax.random.key(self.config.seed), 2**32 - 1)
        jit = partial(
            jax.jit,
            out_shardings=self._state_shardings,
            # It runs once: to optimise it takes longer than it could ever save.
            compiler_options={"xla_backend_optimization_level": 0},
        )
        if self.config.model.weights is None:
            return jit(self._create_state)(key)
        *_, channels = self._image_shape
        model = self.model.clone(in_channels=channels)
        variables = starting_variables(self.config, model, key)
        found = gather("weights", json_digest(describe_arrays(variables)))
        if len(set(found)) > 1:
            raise ConfigError(
                f"model.weights {self.config.model.weights}: the processes have different files; "
                "give all of them the same"
            )
        create = partial(state_of, optimizer=self.optimizer, ema=self.config.ema_decay > 0)
        return jit(create)(replicate(variables, self.mesh))

    def _create_state(self, key: jax.Array) -> TrainState:
        return create_train_state(
            key, self.model, self.optimizer, self._image_shape, ema=self.config.ema_decay > 0
        )

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the model is given."""
        images = jax.ShapeDtypeStruct((1, *self.dataset.evaluation.image_shape), jnp.uint8)
        return jax.eval_shape(self.dataset.prepare, images).shape[1:]

    @cached_property
    def _state_shapes(self) -> TrainState:
        return jax.eval_shape(self._create_state, jax.random.key(0))

    @property
    def _state_shardings(self) -> TrainState:
        return state_shardings(
            self._state_shapes, self.mesh, shard_optimizer=self.config.shard_optimizer
        )

    @property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self._state_shapes,
            self._state_shardings,
        )

    @property
    def num_params(self) -> int:
        """Number of parameters of the model."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.abstract_state.params))

    def compile(self) -> tuple[TrainStep, EvalStep]:
        """The two steps, compiled for this run's shapes; the training step donates its state.

        They take what the iterators of the splits yield, on the devices.
        """
        replica, sharded = replicated(self.mesh), batch_sharded(self.mesh)
        state = self._state_shardings
        train, evaluation = self.dataset.train, self.dataset.evaluation
        train_batch = make_train_step(
            self.model,
            self.optimizer,
            self.dataset.augment,
            label_smoothing=self.config.label_smoothing,
            ema_decay=make_ema_decay(self.config.ema_decay, warmup=self.config.ema_warmup)
            if self.config.ema_decay
            else None,
        )
        eval_batch = make_eval_step(self.model, self.dataset.prepare)

        def train_step(
            resident: Any, state: TrainState, drawn: Any, key: jax.Array
        ) -> tuple[TrainState, Metrics]:
            return train_batch(state, train.fetch(resident, drawn), key)

        def eval_step(resident: Any, state: TrainState, drawn: Any) -> tuple[Metrics, jax.Array]:
            return eval_batch(state, evaluation.fetch(resident, drawn))

        def drawn(split: Split) -> Any:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    (self.config.batch_size, *leaf.shape), leaf.dtype, sharding=sharded
                ),
                split.example,
            )

        key = jax.eval_shape(jax.random.key, 0)
        abstract_key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replica)
        train_arrays, evaluation_arrays = (
            replicate(split.resident, self.mesh) for split in (train, evaluation)
        )
        jitted_train_step = jax.jit(
            train_step,
            in_shardings=(replica, state, sharded, replica),
            out_shardings=(state, replica),
            donate_argnames="state",
        )
        jitted_eval_step = jax.jit(
            eval_step,
            in_shardings=(replica, state, sharded),
            # Logits are fetched by the host, so every host needs all of them.
            out_shardings=(replica, replica),
        )
        with platform.devices(self.mesh.size):
            lowered_train_step = jitted_train_step.lower(
                train_arrays, self.abstract_state, drawn(train), abstract_key
            )
            lowered_eval_step = jitted_eval_step.lower(
                evaluation_arrays, self.abstract_state, drawn(evaluation)
            )
        return (
            partial(lowered_train_step.compile(), train_arrays),
            partial(lowered_eval_step.compile(), evaluation_arrays),
        )
