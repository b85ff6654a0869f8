"""Everything that stays the same throughout a run, made from its configuration."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from functools import cached_property, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import resnet_jax
from resnet_jax.config import ConfigError, TrainConfig
from resnet_jax.data import Dataset, Split, open_dataset
from resnet_jax.inference.precise_bn import make_batch_statistics
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.models import ResNet
from resnet_jax.ops import platform
from resnet_jax.ops.compilation import run_once_options
from resnet_jax.training.accumulation import microbatches
from resnet_jax.training.averaging import Timeline
from resnet_jax.training.class_balance import count_classes
from resnet_jax.training.composition import create_gradient_function, create_update
from resnet_jax.training.distillation import Teacher, digest, distilled, open_teacher, taught
from resnet_jax.training.evaluate import BatchEvaluation, EvalStep, make_eval_step
from resnet_jax.training.guard import initial_guard
from resnet_jax.training.loss_scale import initial_loss_scale
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.network import create_network
from resnet_jax.training.objective import Objective, create_objective, cross_entropy
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.phases import Phase, Phases
from resnet_jax.training.process.distributed import gather
from resnet_jax.training.sharding import (
    batch_sharded,
    make_mesh,
    replicate,
    replicated,
    state_shardings,
)
from resnet_jax.training.starting_weights import (
    Tensors,
    read_starting_weights,
    starting_variables,
)
from resnet_jax.training.state import TrainState, state_of
from resnet_jax.training.step import (
    Augment,
    TrainStep,
    compose_train_step,
    step_keys,
)
from resnet_jax.weights.formats.digests import describe_arrays, json_digest

StatisticsStep = Callable[[dict[str, Any], Any, jax.Array, np.int32], tuple[Any, jax.Array]]
"""From (variables, batch, key, step) to the statistics of each of the M microbatches, arrays
[M, ...] in the structure of ``batch_stats``, and the numbers of their examples, int32[M]. The batch
is what the iterator of the training split yields. It is augmented as the training step does after
that number of steps."""


def check(config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> tuple[ResNet, Mesh]:
    """Return the network and the devices of an experiment, before the data are opened.

    Args:
        config: The experiment.
        devices: Devices to train on; by default all.

    Raises:
        ConfigError: A field has a value of another type, the devices cannot share the global batch
            evenly, the processes have different numbers of devices, or the network is impossible
            (see `create_network`).
    """
    config.check_types()
    mesh = make_mesh(devices)
    config.check_devices(mesh.size)
    if mesh.size != mesh.local_mesh.size * jax.process_count():
        raise ConfigError(
            f"process {jax.process_index()} has {mesh.local_mesh.size} of {mesh.size} devices; all "
            f"{jax.process_count()} processes must have the same number"
        )
    return create_network(config, mesh.size), mesh


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """An experiment with its network, devices, data and optimizer.

    Attributes:
        config: The experiment.
        model: The network, for the classes and channels of the data.
        mesh: The devices.
        dataset: The images.
        schedule: From the number of steps done to the learning rate.
        optimizer: The optimizer.
        total_steps: Number of steps of the whole run.
        phases: The sizes of training images and batches, by step.
        head_steps: Number of steps at the beginning that train only the head.
        weights: Tensors in ``config.model.weights``, if they have been read already.
        objective: The loss of each example.
        teacher: What the network learns from besides the labels, if anything.
    """

    config: TrainConfig
    model: ResNet
    mesh: Mesh
    dataset: Dataset
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    total_steps: int
    phases: Phases
    head_steps: int = 0
    weights: Tensors | None = None
    objective: Objective = cross_entropy
    teacher: Teacher | None = None

    @classmethod
    def create(cls, config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> Self:
        """Return the run of an experiment; see `check` and `open`."""
        return cls.open(config, *check(config, devices))

    @classmethod
    def open(
        cls,
        config: TrainConfig,
        model: ResNet,
        mesh: Mesh,
        weights: Tensors | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> Self:
        """Return the run of an experiment that `check` has accepted; opens the data.

        Args:
            config: The experiment.
            model: The network.
            mesh: The devices.
            weights: Tensors to start from. By default `create_state` reads them.
            arrays: Arrays by their names, for data without a path; see `ArraysConfig`.

        Raises:
            ConfigError: The images do not have ``config.model.in_channels`` channels, the run
                stops early and the data have no validation split, or the loss or the teacher does
                not fit the data.
            DataError: There are no such images.
            ImportError: The libraries that read the images are not installed.
        """
        dataset = open_dataset(config.data, arrays)
        if config.distillation.is_file:
            # The logits of an image are found by its position in the training split.
            dataset = dataclasses.replace(dataset, train=dataset.train.with_index())
        *_, channels = _prepared_shape(dataset)
        if model.in_channels not in (None, channels):
            raise ConfigError(
                f"model.in_channels is {model.in_channels}, but the images of {dataset.name} have "
                f"{channels} channel{'s' if channels > 1 else ''}; set it to {channels} or to None"
            )
        if config.early_stopping.patience and dataset.evaluation_split == "test":
            raise ConfigError(
                f"early_stopping needs a validation split, but the images of {dataset.name} are "
                "evaluated on a test split, which must not choose a checkpoint; set "
                "data.hold_out_validation (folders), data.evaluate_on (digits) or "
                "data.evaluation_split (TFDS, IDX, arrays), or early_stopping.patience to None"
            )
        phases = Phases.create(config, dataset)
        for batch_size in {phase.batch_size for phase in phases.phases} - {config.batch_size}:
            try:
                resized = dataclasses.replace(config, batch_size=batch_size)
                resized.check_devices(mesh.size)
                resized.statistics_size(mesh.size)
            except ConfigError as error:
                raise ConfigError(f"resizing.batch_sizes: {error}") from None

        def steps(epochs: float) -> int:
            return max(1, phases.steps(epochs))

        head_epochs = config.finetune.head_epochs
        head_steps = steps(head_epochs) if head_epochs else 0
        schedule = config.schedule.create(
            config.peak_learning_rate,
            epochs=config.schedule_epochs,
            steps=lambda epochs: max(1, steps(head_epochs + epochs) - head_steps),
        )
        if head_steps:
            peak = optax.constant_schedule(config.peak_learning_rate)
            schedule = optax.join_schedules([peak, schedule], [head_steps])
        schedule = _scaled_by_batches(schedule, config, phases)
        return cls(
            config=config,
            model=model.clone(num_classes=len(dataset.class_names), in_channels=channels),
            mesh=mesh,
            dataset=dataset,
            schedule=schedule,
            optimizer=_create_optimizer(config, schedule),
            total_steps=steps(config.epochs),
            phases=phases,
            head_steps=head_steps,
            weights=weights,
            objective=_objective(config, dataset),
            teacher=open_teacher(config.distillation, dataset),
        )

    def with_schedule(self, schedule: optax.Schedule, total_steps: int) -> Self:
        """Return the same run with another schedule; all of its steps train the whole network.

        Args:
            schedule: From the number of steps done to the learning rate.
            total_steps: Number of steps.
        """
        return dataclasses.replace(
            self,
            schedule=schedule,
            optimizer=_create_optimizer(self.config, schedule),
            total_steps=total_steps,
            head_steps=0,
        )

    def first_batches(self, count: int | None = None) -> Iterator[Any]:
        """Yield this process's part of the first training batches, all of the size in ``config``.

        What loads them ends with the iterator.

        Args:
            count: Number of batches. None yields batches without end.
        """
        drawn: Any = self.dataset.train.train_batches(
            self.config.batch_size,
            seed=self.config.seed,
            start_step=0,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with closing(drawn):
            yield from itertools.islice(drawn, count)

    def epochs_done(self, step: int) -> float:
        """Return the number of passes over the training split after a number of steps."""
        return self.phases.examples(step) / self.dataset.train.epoch_size

    @property
    def timeline(self) -> Timeline:
        """How the steps are divided into epochs."""
        return Timeline(self.phases, self.total_steps, self.config.epochs)

    def evaluation_due(self, step: int) -> bool:
        """Return True if a step completes an interval between evaluations, or the run."""
        done, before = (
            self.epochs_done(count) // self.config.evaluate_every_epochs
            for count in (step, step - 1)
        )
        return done > before or step == self.total_steps

    @property
    def step_key(self) -> jax.Array:
        """The PRNG key of all randomness within steps, on all devices."""
        # `device_put` cannot reach the devices of other processes; a jitted function can.
        return jax.jit(jax.random.key, out_shardings=replicated(self.mesh))(self.config.seed)

    def create_state(self) -> TrainState:
        """Return the state before the first step, on all devices.

        Raises:
            ConfigError: The run starts from weights, and they cannot be read, belong to another
                network, or differ between the processes.
        """
        jit = partial(
            jax.jit,
            out_shardings=self._state_shardings,
            compiler_options=run_once_options(),
        )
        config = self.config.model
        if config.weights is None:
            return jit(self._initialize)(_as_argument(self.config.seed))
        tensors = (
            read_starting_weights(config, self.model) if self.weights is None else self.weights
        )
        variables = starting_variables(
            config, tensors, self.model, _parameter_key(self.config.seed)
        )
        found = gather("weights", json_digest(describe_arrays(variables)))
        if len(set(found)) > 1:
            raise ConfigError(
                f"model.weights {config.weights}: the processes have different files; give all of "
                "them the same"
            )
        return jit(self._state_of)(replicate(variables, self.mesh))

    @cached_property
    def _initialize(self) -> Callable[[Any], TrainState]:
        """Function from the seed to the state before the first step.

        JAX traces a function once, so it is the same object for the shapes and for the values.
        """
        shape = (1, *_prepared_shape(self.dataset))

        def initialize(seed: jax.Array) -> TrainState:
            key = _parameter_key(seed)
            return self._state_of(self.model.init(key, jnp.zeros(shape), train=False))

        return initialize

    def _state_of(self, variables: Any) -> TrainState:
        """Return the state before the first step, with all fields that the experiment needs."""
        config = self.config
        state = state_of(variables, self.optimizer, ema=config.averaging.enabled)
        return dataclasses.replace(
            state,
            guard=initial_guard(state.params) if config.skips_steps else {},
            loss_scale=initial_loss_scale() if config.model.dtype == "float16" else {},
        )

    @cached_property
    def _state_shapes(self) -> TrainState:
        return jax.eval_shape(self._initialize, _as_argument(self.config.seed))

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
        """Number of parameters of the network."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self._state_shapes.params))

    @cached_property
    def teacher_digest(self) -> str | None:
        """SHA-256 of what the teacher knows, or None without a teacher."""
        return None if self.teacher is None else digest(self.teacher)

    @cached_property
    def spec(self) -> ModelSpec:
        """What is needed to use the network, besides its variables."""
        model, (*_, channels) = self.config.model, self.dataset.evaluation.image_shape
        fields: dict[str, Any] = {
            "in_channels": channels,
            "small_input": model.small_input,
            "output_stride": model.output_stride,
            # With it, the variables of a stage are stacked.
            "scan": model.scan,
            "dtype": model.dtype,
        }
        if self._state_shapes.batch_stats:
            fields["bn_epsilon"] = model.bn_epsilon
        fields |= {
            name: value
            for name in ("act", "norm", "conv", "stem_pool")
            if (value := getattr(model, name)) is not None
        }
        return ModelSpec(
            name=model.name,
            fields=fields,
            num_classes=len(self.dataset.class_names),
            class_names=self.dataset.class_names,
            preprocessing=self.dataset.preprocessing,
            library_version=resnet_jax.__version__,
        )

    def compile(self) -> tuple[TrainStep, EvalStep]:
        """Return the two steps, compiled for the shapes of this run.

        Their batches are what the iterators of the splits yield, on the devices.  The training step
        donates its state.
        """
        lowered = self.lower_train_step()
        # XLA does not hold the global interpreter lock, so the evaluation step is traced meanwhile.
        with ThreadPoolExecutor(1, thread_name_prefix="compile") as compiler:
            compiling = compiler.submit(lowered.compile)
            eval_step = self.compile_eval_step()
            return partial(compiling.result(), self._train_arrays), eval_step

    def compile_eval_step(self) -> EvalStep:
        """Return the evaluation step alone, compiled like that of `compile`."""
        return partial(self._lower_eval_step().compile(), self._evaluation_arrays)

    def compile_train_step(self) -> TrainStep:
        """Return the training step alone, compiled like that of `compile`."""
        return partial(self.lower_train_step().compile(), self._train_arrays)

    def compile_head_step(self) -> TrainStep:
        """Return the step that trains only the head, compiled like that of `compile`."""
        return partial(self.lower_train_step(head_only=True).compile(), self._train_arrays)

    def of_phase(self, phase: Phase) -> Self:
        """Return the run with the sizes of a phase, to lower and compile its training steps."""
        if phase.image_size is None:
            return self
        config, model = self.config, self.model
        if phase.batch_size != config.batch_size:
            config = dataclasses.replace(config, batch_size=phase.batch_size)
            size = config.statistics_size(self.mesh.size)
            model = model if size is None else model.clone(bn_group_size=size)
        run = dataclasses.replace(
            self, config=config, model=model, dataset=self.dataset.resized(phase.image_size)
        )
        # The devices keep one copy of the arrays for all phases.
        vars(run)["_train_arrays"] = self._train_arrays
        return run

    def lower_train_step(self, *, head_only: bool = False) -> jax.stages.Lowered:
        """Return the training step for the shapes of this run, not yet compiled.

        Args:
            head_only: Whether it trains only the head.
        """
        replica, state, train = replicated(self.mesh), self._state_shardings, self.dataset.train
        compute_gradients = create_gradient_function(
            self.config, self.model, self.objective, head_only=head_only
        )
        update = create_update(self.config, self.optimizer, self.timeline, head_only=head_only)

        def train_step(
            resident: Any, state: TrainState, drawn: Any, key: jax.Array
        ) -> tuple[TrainState, Metrics]:
            images, teacher = resident if self.teacher else (resident, None)
            augment = self._augment(state.step, teacher, drawn)
            train_batch = compose_train_step(augment, compute_gradients, update)
            return train_batch(state, train.fetch(images, drawn), key)

        jitted = jax.jit(
            train_step,
            in_shardings=(replica, state, batch_sharded(self.mesh), replica),
            out_shardings=(state, replica),
            donate_argnames="state",
        )
        with self._platform():
            return jitted.lower(
                self._train_arrays, self.abstract_state, self._drawn_batch, self._abstract_key
            )

    def compile_statistics_step(self) -> StatisticsStep:
        """Return the step that computes BatchNorm's statistics of a training batch, compiled.

        Its variables are those that are evaluated.
        """
        train, replica = self.dataset.train, replicated(self.mesh)
        batch_statistics, augment = make_batch_statistics(self.model), self.dataset.augment
        if self.dataset.mix_until_epoch is not None:
            # The last steps, from which the evaluated variables come, do not mix.
            augment = partial(augment, mixing=jnp.asarray(False))

        def statistics_step(
            resident: Any, variables: dict[str, Any], drawn: Any, key: jax.Array, step: jax.Array
        ) -> tuple[Any, jax.Array]:
            batch = train.fetch(resident[0] if self.teacher else resident, drawn)
            images, _ = augment(step_keys(key, step)[0], batch.image, batch.label)
            parts = microbatches((images, batch.mask), self.config.accumulate_steps)
            found = jax.lax.map(lambda part: batch_statistics(variables, *part), parts)
            return found, parts[1].sum(1)

        evaluated = self._state_shardings.evaluated
        jitted = jax.jit(
            statistics_step,
            in_shardings=(replica, evaluated, batch_sharded(self.mesh), replica, replica),
            out_shardings=replica,
        )
        arguments = self.abstract_state.evaluated, self._drawn_batch, self._abstract_key
        with self._platform():
            lowered = jitted.lower(self._train_arrays, *arguments, np.int32(0))
        return partial(lowered.compile(), self._train_arrays)

    @cached_property
    def place_evaluated(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Function that places variables on the devices as the evaluation step takes them."""
        return jax.jit(lambda tree: tree, out_shardings=self._state_shardings.evaluated)

    def augmentation(self, step: jax.Array) -> Augment:
        """Return the augmentation of one step, for use while the step is traced.

        Args:
            step: int32[], number of steps done.
        """
        augment, until = self.dataset.augment, self.dataset.mix_until_epoch
        if until is None:
            return augment
        # One program serves both phases. A second one would take as long to compile as the first,
        # and this one mixes with a weight of 1 after the end, which costs one pass over the images.
        last = max(1, self.phases.steps(until))
        return partial(augment, mixing=step < last)

    def _augment(self, step: jax.Array, resident: Any, drawn: Any) -> Callable[..., Any]:
        """Return the augmentation of one step, followed by the teacher, if there is one.

        Args:
            step: int32[], number of steps done.
            resident: The arrays of the teacher.
            drawn: What the iterator of the training split yields.
        """
        augment = self.augmentation(step)
        if self.teacher is None:
            return augment
        return taught(augment, self.teacher, resident, drawn, self.config.accumulate_steps)

    def _lower_eval_step(self) -> jax.stages.Lowered:
        evaluation, replica = self.dataset.evaluation, replicated(self.mesh)
        drawn = self._drawn(evaluation, self.config.microbatch_size)
        eval_batch = make_eval_step(self.model, self.dataset.prepare, self.config.tta)

        def eval_step(resident: Any, variables: dict[str, Any], drawn: Any) -> BatchEvaluation:
            return eval_batch(variables, evaluation.fetch(resident, drawn))

        jitted = jax.jit(
            eval_step,
            in_shardings=(replica, self._state_shardings.evaluated, batch_sharded(self.mesh)),
            # The host fetches all of them, so every host needs a full copy.
            out_shardings=replica,
        )
        with self._platform():
            return jitted.lower(self._evaluation_arrays, self.abstract_state.evaluated, drawn)

    @property
    def _abstract_key(self) -> jax.ShapeDtypeStruct:
        key = jax.eval_shape(jax.random.key, 0)
        return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(self.mesh))

    def _platform(self) -> AbstractContextManager[None]:
        return platform.devices(self.mesh.size, self.mesh.devices.flat[0].platform)

    @cached_property
    def _train_arrays(self) -> Any:
        """Arrays of the training split and the teacher that the devices keep during the run."""
        images = self.dataset.train.resident
        return replicate((images, self.teacher.resident) if self.teacher else images, self.mesh)

    @cached_property
    def _evaluation_arrays(self) -> Any:
        return replicate(self.dataset.evaluation.resident, self.mesh)

    @property
    def _drawn_batch(self) -> Any:
        return self._drawn(self.dataset.train, self.config.batch_size)

    def _drawn(self, split: Split, batch_size: int) -> Any:
        """Return shapes, dtypes and shardings of what the iterators of a split yield."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (batch_size, *leaf.shape),
                leaf.dtype,
                sharding=batch_sharded(self.mesh),
            ),
            split.example,
        )


def _as_argument(seed: int) -> np.int64:
    """Return a seed as an argument of a program, which takes the same 32 bits as `jax.random.key`.

    JAX refuses a Python integer of more than 31 bits.
    """
    return np.int64(seed)


def _parameter_key(seed: int | jax.Array) -> jax.Array:
    """Return the PRNG key of the parameters.

    No step has the number 2**32 - 1, so this key is used nowhere else.
    """
    return jax.random.fold_in(jax.random.key(seed), 2**32 - 1)


def _scaled_by_batches(
    schedule: optax.Schedule, config: TrainConfig, phases: Phases
) -> optax.Schedule:
    """Return a schedule that follows ``learning_rate_scaling`` where batches have another size."""

    def factor(phase: Phase) -> float:
        of_phase = dataclasses.replace(config, batch_size=phase.batch_size)
        return of_phase.learning_rate_factor / config.learning_rate_factor

    factors = np.asarray([factor(phase) for phase in phases.phases], np.float32)
    if (factors == 1).all():
        return schedule
    ends = jnp.asarray([phase.first_step for phase in phases.phases[1:]])
    rates = jnp.asarray(factors)
    return lambda step: schedule(step) * rates[jnp.searchsorted(ends, step, side="right")]


def _create_optimizer(
    config: TrainConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    # Some optimizers divide by the peak of the schedule, which the batch size scales.
    optimizer = dataclasses.replace(config.optimizer, learning_rate=config.peak_learning_rate)
    return create_optimizer(optimizer, schedule, config.finetune, config.clip)


def _objective(config: TrainConfig, dataset: Dataset) -> Objective:
    """Return the loss of each example, which may depend on the labels of the training split."""
    class_names = dataset.class_names
    counts = None
    if config.loss.uses_class_counts:
        counts = count_classes(dataset.train.labels, class_names)
    objective = create_objective(config.loss, len(class_names), counts)
    teaching = config.distillation
    if teaching.teacher is None:
        return objective
    return distilled(objective, temperature=teaching.temperature, weight=teaching.weight)


def _prepared_shape(dataset: Dataset) -> tuple[int, int, int]:
    """Return (H, W, C) of the images that the network is given."""
    images = jax.ShapeDtypeStruct((1, *dataset.evaluation.image_shape), jnp.uint8)
    return jax.eval_shape(dataset.prepare, images).shape[1:]
