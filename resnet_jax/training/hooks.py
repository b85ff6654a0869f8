"""Hooks: functions of the user that a run calls at its start, between its steps and at its end."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from resnet_jax.config import TrainConfig
from resnet_jax.training.process.distributed import is_primary
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import fetch

Variables = Callable[[], dict[str, Any]]
"""Function that copies the variables of the network to NumPy arrays: ``params`` and, if the network
has them, ``batch_stats``. They are the moving averages if the run keeps them."""


@dataclasses.dataclass(frozen=True)
class StartEvent:
    """The beginning of a run, or its continuation.

    Attributes:
        config: The experiment.
        workdir: The run directory.
        step: Number of steps done before, 0 for a new run.
        total_steps: Number of steps of the whole run.
    """

    config: TrainConfig
    workdir: Path
    step: int
    total_steps: int


@dataclasses.dataclass(frozen=True)
class StepEvent:
    """A step whose metrics are recorded.

    Attributes:
        step: Number of steps done.
        total_steps: Number of steps of the whole run.
        epoch: Number of epochs done.
        metrics: Means over the training images since the last record: ``loss`` in nats, ``top1``
            and ``top5`` as shares from 0 to 1. Steps whose loss is not finite are left out, and
            the three are missing if no other step is left. A run that skips steps has more values,
            which describe that.
        learning_rate: Learning rate of this step.
        images_per_second: Throughput since the last record, without evaluations, checkpoints and
            hooks.
    """

    step: int
    total_steps: int
    epoch: float
    metrics: Mapping[str, float]
    learning_rate: float
    images_per_second: float


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationEvent:
    """An evaluation.

    Attributes:
        step: Number of steps done.
        total_steps: Number of steps of the whole run.
        epoch: Number of epochs done.
        split: Name of the evaluated split, ``"validation"`` or ``"test"``.
        metrics: Means over its images: ``loss`` in nats, ``top1`` and ``top5`` as shares from 0 to
            1. A run with averages also has ``raw_loss``, ``raw_top1`` and ``raw_top5`` of the
            parameters themselves.
        variables: Function that returns the variables that were evaluated. Call it within the hook:
            the next step reuses their memory.
    """

    step: int
    total_steps: int
    epoch: float
    split: str
    metrics: Mapping[str, float]
    variables: Variables


@dataclasses.dataclass(frozen=True, eq=False)
class EndEvent:
    """The end of a run that has done all its steps, or has stopped early.

    Attributes:
        step: Number of steps after which the run was evaluated: all of them or, if it stops early,
            those of the best checkpoint.
        epoch: Number of epochs done by then.
        split: Name of the evaluated split.
        metrics: Its metrics, as in `EvaluationEvent`.
        variables: Function that returns the variables that were evaluated.
        workdir: The run directory.
        report: The report, an HTML file that needs no other files.
        seconds: Wall time of this session of the run.
    """

    step: int
    epoch: float
    split: str
    metrics: Mapping[str, float]
    variables: Variables
    workdir: Path
    report: Path
    seconds: float


@runtime_checkable
class Hook(Protocol):
    """What a run calls. Subclasses define the methods that they need; the others do nothing.

    Hooks are called in process 0 only, in their order, and in its main thread.  Training waits for
    them.  An error that a hook raises ends the run with its traceback.  Checkpoints stay valid, and
    the same call continues the run.
    """

    def on_start(self, event: StartEvent) -> None:
        """Act before the first step of this session."""

    def on_step(self, event: StepEvent) -> None:
        """Act after a step whose metrics are recorded.

        These are every ``log_every_steps``-th step and those after which the run is evaluated or
        interrupted.  The run does not wait for the devices in the steps between them, so hooks are
        not called there.  A checkpoint that is due after the step is saved before.
        """

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Act after an evaluation."""

    def on_end(self, event: EndEvent) -> None:
        """Act at the end, when the report is written and before the run is marked as complete.

        It is not called when a run is interrupted or fails.
        """


def check_hooks(hooks: Sequence[Hook]) -> None:
    """Raise `TypeError` if one of some objects is not a hook."""
    for hook in hooks:
        if isinstance(hook, type) or not isinstance(hook, Hook):
            methods = [name for name in vars(Hook) if name.startswith("on_")]
            raise TypeError(
                f"{hook!r} is not a hook, which has the methods {', '.join(methods)}; give an "
                "instance of a subclass of resnet_jax.training.Hook"
            )


class RunHooks:
    """Calls the hooks of a run.

    All processes call the methods, and process 0 calls the hooks.

    Args:
        hooks: The hooks.
        run: The run.
        workdir: The run directory.
    """

    def __init__(self, hooks: Sequence[Hook], run: Run, workdir: Path) -> None:
        self._hooks, self._run, self._workdir = hooks, run, workdir

    def start(self, step: int) -> None:
        """Call the hooks at the beginning, with the number of steps that are done already."""
        event = StartEvent(self._run.config, self._workdir, step, self._run.total_steps)
        self._call(lambda hook: hook.on_start(event))

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Call the hooks after a step.

        Args:
            step: Number of steps done.
            values: The record of the step: metrics, ``learning_rate`` and ``images_per_second``.
        """
        metrics = dict(values)
        event = StepEvent(
            step=step,
            total_steps=self._run.total_steps,
            epoch=self._run.epochs_done(step),
            learning_rate=metrics.pop("learning_rate"),
            images_per_second=metrics.pop("images_per_second"),
            metrics=metrics,
        )
        self._call(lambda hook: hook.on_step(event))

    def evaluation(
        self, step: int, metrics: Mapping[str, float], variables: dict[str, Any]
    ) -> None:
        """Call the hooks after an evaluation.

        Args:
            step: Number of steps done.
            metrics: The evaluation.
            variables: The variables that were evaluated, on the devices.
        """
        if not self._hooks:
            return
        event = EvaluationEvent(
            step=step,
            total_steps=self._run.total_steps,
            epoch=self._run.epochs_done(step),
            split=self._run.dataset.evaluation_split,
            metrics=dict(metrics),
            variables=self._copy_of(variables),
        )
        self._call(lambda hook: hook.on_evaluation(event))

    def end(self, event: EndEvent) -> None:
        """Call the hooks at the end."""
        self._call(lambda hook: hook.on_end(event))

    def _call(self, method: Callable[[Hook], None]) -> None:
        if is_primary():
            for hook in self._hooks:
                method(hook)

    def _copy_of(self, variables: dict[str, Any]) -> Variables:
        """Return a function that copies arrays to this process, and does so only when called."""
        leaves = jax.tree.leaves(variables)
        if not all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in leaves):
            # The processes share the arrays, so that all of them must take part.
            fetched = fetch(variables, self._run.mesh)
            return lambda: fetched
        # `np.asarray` and `jax.device_get` may return memory that the next step overwrites.
        return lambda: jax.tree.map(np.array, variables)
