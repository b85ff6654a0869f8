"""What a run would do and cost: steps, schedule, size, memory and time, without training it."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.config import TrainConfig
from resnet_jax.models.complexity import count_macs
from resnet_jax.report import Series
from resnet_jax.training.description import describe
from resnet_jax.training.learning_rate import learning_rate_curve
from resnet_jax.training.memory import available_memory, memory_of, step_memory
from resnet_jax.training.opening import open_run
from resnet_jax.training.phases import Phase
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState

# Batches that are loaded ahead before the first step are not measured.
_UNMEASURED_STEPS = 3
# Steps between two looks at the clock: waiting for the devices after each step would slow them.
_STEPS_AT_ONCE = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """What a run would do and cost.

    Attributes:
        facts: What would be trained, on what and how, by name, for people.
        total_steps: Number of steps.
        images_seen: Number of training images in all steps together.
        schedule: The learning rate by step, at most 1000 points.
        num_params: Number of parameters.
        macs: Multiply-accumulates of the evaluation of one image.
        memory: Bytes that a training step needs on one device or, on CPUs, on all devices together.
            None if the platform has no such analysis.
        available_memory: Bytes that are available there.
        compile_seconds: Seconds that tracing and compiling the steps takes: the evaluation step,
            and a training step for each size of images and batches.
        step_seconds: Seconds that a training step of the last phase takes, with its data.
        measured_steps: Number of steps that were measured.
        measured_size: Height and width of their images in pixels, if those of other steps are
            smaller. None if all steps have images of one size.
        training_seconds: Seconds that all training steps take.
        evaluation_seconds: Seconds that an evaluation takes.
        evaluations: Number of evaluations.
    """

    facts: dict[str, str]
    total_steps: int
    images_seen: int
    schedule: Series
    num_params: int
    macs: int
    memory: int | None
    available_memory: int
    compile_seconds: float
    step_seconds: float
    measured_steps: int
    measured_size: int | None
    training_seconds: float
    evaluation_seconds: float
    evaluations: int

    @property
    def seconds(self) -> float:
        """Estimated wall time of the run: compilation, training steps and evaluations."""
        return (
            self.compile_seconds
            + self.training_seconds
            + self.evaluations * self.evaluation_seconds
        )


def estimate(config: TrainConfig, *, measure_seconds: float = 5.0) -> Estimate:
    """Return what a run would do and cost. A few steps are done, and nothing is written.

    The steps are those of the run with its data, from a new state.  Their time includes waiting for
    the data.  It is that of the steps after the batches that were loaded ahead.  In a run that
    trains the head first, those steps are faster than the estimate.  The recomputation of
    statistics is not measured.

    If the sizes of training images and batches change, the steps and their compilation are those of
    the last phase.  The time of the others is scaled by the number of images and their pixels.  The
    memory is that of the phase whose batches have the most pixels.

    Args:
        config: The experiment.
        measure_seconds: Number of seconds after which the measurement of the steps ends. At least
            five steps are measured, or all if the run has fewer.

    Raises:
        ConfigError: The experiment cannot work; the message says what to change.
        DataError: The images cannot be read.
    """
    run = open_run(config, read_weights=True)
    phases = run.phases.phases
    last = run.of_phase(phases[-1])
    available = available_memory(run.mesh.local_devices)
    state = run.create_state()
    started = time.perf_counter()
    train_step = last.compile_train_step()
    compiled = time.perf_counter()
    eval_step = run.compile_eval_step()
    compile_seconds = len(phases) * (compiled - started) + time.perf_counter() - compiled
    # It is the compiled program with the arrays of the training split.
    program: Any = train_step
    memory = memory_of(program.func, run.mesh)
    # Phases that need the same memory as the last one are not compiled.
    largest = max(reversed(phases), key=_pixels)
    if memory and largest is not phases[-1]:
        memory = step_memory(run.of_phase(largest), largest.batch_size)
    # The steps donate the state. If there are averages, the parameters are evaluated as well.
    variables, passes = jax.tree.map(jnp.copy, state.evaluated), 2 if state.ema else 1
    step_seconds, measured = _measure_steps(last, train_step, state, measure_seconds)
    shape = jax.eval_shape(
        run.dataset.prepare,
        jax.ShapeDtypeStruct((1, *run.dataset.evaluation.image_shape), jnp.uint8),
    ).shape[1:]
    evaluations = sum(map(run.evaluation_due, range(1, run.total_steps + 1)))
    return Estimate(
        facts=describe(run),
        total_steps=run.total_steps,
        images_seen=run.phases.examples(run.total_steps),
        schedule=learning_rate_curve(run),
        num_params=run.num_params,
        macs=count_macs(run.model, shape),
        memory=memory[0] if memory else None,
        available_memory=available,
        compile_seconds=compile_seconds,
        step_seconds=step_seconds,
        measured_steps=measured,
        measured_size=phases[-1].image_size if len(phases) > 1 else None,
        training_seconds=step_seconds * _steps_of_last_phase(run),
        evaluation_seconds=passes * _measure_evaluation(run, eval_step, variables),
        evaluations=evaluations,
    )


def in_words(found: Estimate) -> dict[str, str]:
    """Return an estimate by name, for people."""
    gibibyte = 2**30
    memory = "no analysis on this platform"
    if found.memory is not None:
        memory = (
            f"{found.memory / gibibyte:.2f} GiB for a training step, "
            f"{found.available_memory / gibibyte:.2f} GiB available"
        )
    return {
        **found.facts,
        "images seen": f"{found.images_seen:,}",
        "operations": f"{found.macs / 1e6:,.1f} million multiply-accumulates for one image",
        "memory": memory,
        "compilation": f"{found.compile_seconds:.1f} s",
        "training": f"{duration(found.training_seconds)}, "
        f"{1000 * found.step_seconds:.1f} ms a step, measured in {found.measured_steps} steps"
        + (f", scaled from images of {found.measured_size} pixels" if found.measured_size else ""),
        "evaluation": f"{duration(found.evaluations * found.evaluation_seconds)}, "
        f"{found.evaluations:,} times {found.evaluation_seconds:.1f} s",
        "estimated time": duration(found.seconds),
    }


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, for people.

    >>> [duration(seconds) for seconds in (0.04, 12.34, 200, 7290, 100_000)]
    ['0.0 s', '12.3 s', '3 min 20 s', '2 h 2 min', '1 d 4 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    for (large, size), (small, part) in itertools.pairwise(units):
        if seconds >= size:
            parts = round(seconds / part)
            per = size // part
            return f"{parts // per} {large} {parts % per} {small}"
    raise AssertionError("a minute or more has a unit")


def _pixels(phase: Phase) -> int:
    """Return a number in proportion to the pixels of the batches of a phase."""
    return phase.batch_size * (phase.image_size or 1) ** 2


def _steps_of_last_phase(run: Run) -> float:
    """Return how many steps of the last phase process as many pixels as all steps of a run."""
    phases = run.phases.phases
    ends = [*(phase.first_step for phase in phases[1:]), run.total_steps]
    pixels = sum(
        (end - phase.first_step) * _pixels(phase) for phase, end in zip(phases, ends, strict=True)
    )
    return pixels / _pixels(phases[-1])


def _measure_steps(
    run: Run, train_step: Callable[..., Any], state: TrainState, seconds: float
) -> tuple[float, int]:
    """Return the time of a training step in seconds, and the number of steps that were measured."""
    key = run.step_key
    with Prefetch(run.first_batches(), run.mesh) as batches:

        def do_steps(state: TrainState, count: int) -> TrainState:
            metrics = None
            for _ in range(count):
                state, metrics = train_step(state, next(batches), key)
            jax.block_until_ready((state, metrics))
            return state

        state = do_steps(state, _UNMEASURED_STEPS)
        started, measured, passed = time.perf_counter(), 0, 0.0
        while measured < run.total_steps and (measured == 0 or passed < seconds):
            count = min(_STEPS_AT_ONCE, run.total_steps - measured)
            state = do_steps(state, count)
            measured += count
            passed = time.perf_counter() - started
    return passed / measured, measured


def _measure_evaluation(
    run: Run, eval_step: Callable[..., Any], variables: dict[str, Any]
) -> float:
    """Return the estimated time of an evaluation in seconds, from its first batches."""
    size = run.config.microbatch_size
    drawn = run.dataset.evaluation.eval_batches(size)
    total = math.ceil(len(run.dataset.evaluation) / size)
    with Prefetch(drawn, run.mesh) as batches:
        # The first batch is not measured, unless it is the only one.
        measured: Iterator[Any] = itertools.islice(batches, _STEPS_AT_ONCE)
        if total > 1:
            jax.block_until_ready(eval_step(variables, next(measured)))
        started, count = time.perf_counter(), 0
        for batch in measured:
            jax.block_until_ready(eval_step(variables, batch))
            count += 1
    return total * (time.perf_counter() - started) / count
