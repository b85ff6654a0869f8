"""The training loop: step, record, evaluate, save."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from rich.console import Console

from resnet_jax.config import ConfigError, ProfileConfig
from resnet_jax.data import DataError
from resnet_jax.ops.compilation import run_once_options
from resnet_jax.training.description import describe, early_stop, shortened_warmup
from resnet_jax.training.early_stopping import BestEvaluation
from resnet_jax.training.evaluate import EvalStep, Evaluation
from resnet_jax.training.guard import diagnosis
from resnet_jax.training.hooks import RunHooks
from resnet_jax.training.metrics import Metrics, mean_metrics
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.process.distributed import gather, is_primary
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.process.preemption import Preemption
from resnet_jax.training.process.profiling import Operation, Profile, top_operations
from resnet_jax.training.process.watchdog import Watchdog
from resnet_jax.training.records import Records
from resnet_jax.training.rundir.checkpoints import CheckpointError, Checkpoints
from resnet_jax.training.rundir.console import ProgressLine, print_header
from resnet_jax.training.rundir.metric_log import MetricWriter
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.saving import Saver
from resnet_jax.training.setup import Run, StatisticsStep
from resnet_jax.training.state import TrainState
from resnet_jax.training.state_evaluation import evaluate_state, recompute_statistics
from resnet_jax.training.train_steps import Program, TrainSteps

Result = TypeVar("Result")


class TrainingDivergedError(Exception):
    """Raised when the loss or the parameters are not finite, or too many steps were skipped."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The outcome of a run.

    Attributes:
        run: The run, with its network, data and devices.
        step: Number of steps after which the run was evaluated: all of them or, if it stops early,
            those of the best checkpoint.
        variables: The variables that were evaluated after that step: ``params`` and
            ``batch_stats``, or their moving averages.
        evaluation: Their evaluation.
        compile_seconds: Time spent on tracing and compiling the two steps, partly while the state
            was made and the first images were read.
        operations: The operations that took longest in the traced steps, if any were traced.
    """

    run: Run
    step: int
    variables: dict[str, Any]
    evaluation: Evaluation
    compile_seconds: float
    operations: list[Operation]

    @property
    def metrics(self) -> dict[str, float]:
        """``loss``, ``top1`` and ``top5`` on the evaluation split."""
        return self.evaluation.metrics


def train(
    run: Run,
    workdir: Workdir,
    console: Console,
    *,
    goodput: Goodput,
    profile: ProfileConfig | None = None,
    watchdog_timeout: float = 600.0,
    hooks: RunHooks | None = None,
) -> TrainResult:
    """Train until the last step, from the last checkpoint on if there is one.

    A run that is stopped and continued gives bit for bit the result that it would have given
    without the stop, on the same devices and versions.

    Args:
        run: The experiment with its data and devices.
        workdir: The directory of this run.
        console: Where the header and the progress are printed.
        goodput: Measures what the time is spent on.
        profile: Steps to trace.
        watchdog_timeout: Seconds without a completed step after which the process is ended.
        hooks: Called at the start and between steps. The caller calls them at the end.

    Raises:
        CheckpointError: The last checkpoint has other shapes or other data.
        ConfigError: The run starts from weights that cannot be read or belong to another network.
        DataError: An image cannot be read, or the processes have different images.
        PreemptedError: SIGTERM or Ctrl-C came; the last step is saved.
        TrainingDivergedError: The loss or the parameters are no longer finite; that state is not
            saved. If such steps are skipped, ``guard.max_in_a_row`` of them followed each other.
    """
    profile, hooks = profile or ProfileConfig(), hooks or RunHooks((), run, workdir.path)
    print_header(
        console,
        f"Training {run.config.model.name} on {run.dataset.name}",
        describe(run, workdir),
    )
    if line := shortened_warmup(run):
        console.print(line)
    _require_the_same_images(run)
    _require_the_same_teacher(run)
    with Checkpoints(workdir.checkpoints, run.config.checkpoint) as checkpoints:
        # While it compiles, the state is made or read, and so are the first batches.
        compiler = ThreadPoolExecutor(1, thread_name_prefix="compile")
        start_step = checkpoints.latest_step or 0
        compiling = compiler.submit(_timed(partial(_compile, run, start_step)))
        # The thread ends with its task. Errors and Ctrl-C do not wait for it.
        compiler.shutdown(wait=False)
        with goodput.spent_on("checkpoint" if checkpoints.latest_step else "compile"):
            state, best = _first_state(run, checkpoints, console)
        hooks.start(int(state.step))
        drawn = run.phases.batches(run.dataset, seed=run.config.seed, start_step=int(state.step))
        with Prefetch(drawn, run.mesh) as batches:
            with goodput.spent_on("compile"):
                steps, compile_seconds = compiling.result()
                train_steps, eval_step, statistics_step = steps
            console.print(f"Compiled in {compile_seconds:.1f} s.")
            with Watchdog(watchdog_timeout) as watchdog:

                def evaluated(state: TrainState) -> Evaluation:
                    with goodput.spent_on("evaluation"):
                        return evaluate_state(run, eval_step, state, watch=watchdog.watch)

                def completed(state: TrainState) -> TrainState:
                    if statistics_step is None:
                        return state
                    with goodput.spent_on("evaluation"):
                        return recompute_statistics(
                            run, statistics_step, state, watch=watchdog.watch
                        )

                saver, evaluation = Saver(run, checkpoints, best=best), None
                if int(state.step) < run.total_steps and not saver.stopped:
                    loop = _Loop(run, train_steps, completed, evaluated, goodput, watchdog, hooks)
                    with Profile(workdir.profile, profile) as profiler:
                        state, evaluation = loop(state, batches, workdir, console, saver, profiler)
                if saver.best and saver.best.step != int(state.step):
                    console.print(early_stop(run, int(state.step), saver.best))
                    with goodput.spent_on("checkpoint"):
                        checkpoints.wait()
                        state = checkpoints.restore_step(saver.best.step, run.abstract_state)
                    evaluation = None
                evaluation = evaluation or evaluated(state)
        with goodput.spent_on("checkpoint"):
            checkpoints.wait()
    traced = profile.steps[0] if profile.steps else 1
    operations = top_operations(workdir.profile, train_steps.compiled_at(traced))
    return TrainResult(
        run, int(state.step), state.evaluated, evaluation, compile_seconds, operations
    )


def _compile(run: Run, start_step: int) -> tuple[TrainSteps, EvalStep, StatisticsStep | None]:
    """Return the compiled steps of a run.

    They are the training steps, the evaluation step, and the step that computes statistics, if the
    run recomputes them.  With progressive resizing, only the training step that follows
    ``start_step`` is compiled here.
    """
    if run.phases.resize:
        train_steps = TrainSteps(run)
        train_steps.at(start_step + 1)
        eval_step = run.compile_eval_step()
    else:
        train_step, eval_step = run.compile()
        (phase,) = run.phases.phases
        head = {Program(phase, True): run.compile_head_step()} if run.head_steps else {}
        train_steps = TrainSteps(run, head | {Program(phase, False): train_step})
    recomputed = run.config.averaging.statistics == "recomputed"
    return train_steps, eval_step, run.compile_statistics_step() if recomputed else None


def _timed(function: Callable[[], Result]) -> Callable[[], tuple[Result, float]]:
    """Return the function with the seconds that it took as a second result."""

    def call() -> tuple[Result, float]:
        started = time.perf_counter()
        return function(), time.perf_counter() - started

    return call


def _require_the_same_images(run: Run) -> None:
    """Raise `DataError` unless all processes, which share each batch, have the same data set."""
    fingerprints = gather("fingerprint", run.dataset.fingerprint)
    others = [i for i, found in enumerate(fingerprints) if found != fingerprints[0]]
    if others:
        raise DataError(
            f"process {others[0]} has other images of {run.dataset.name} than process 0; give all "
            "of them the same"
        )


def _require_the_same_teacher(run: Run) -> None:
    """Raise `ConfigError` unless all processes have the same teacher, if there is one."""
    if run.teacher_digest and len(set(gather("teacher", run.teacher_digest))) > 1:
        raise ConfigError(
            f"distillation.teacher {run.config.distillation.teacher}: the processes have different "
            "ones; give all of them the same"
        )


def _first_state(
    run: Run, checkpoints: Checkpoints, console: Console
) -> tuple[TrainState, BestEvaluation | None]:
    """Return the state of the newest checkpoint, or a new one, and the best evaluation before."""
    if checkpoints.latest_step is None:
        return run.create_state(), None
    state, metadata = checkpoints.restore(run.abstract_state)
    if metadata["data"]["fingerprint"] != run.dataset.fingerprint:
        raise CheckpointError(
            f"the images of {run.dataset.name} are not those that this run began with; "
            "bring them back, or start again in another run directory"
        )
    if metadata.get("teacher") != run.teacher_digest:
        raise CheckpointError(
            f"distillation.teacher {run.config.distillation.teacher} is not the one that this run "
            "began with; bring it back, or start again in another run directory"
        )
    console.print(f"Continuing from the checkpoint of step {checkpoints.latest_step}.")
    return state, BestEvaluation.from_metadata(metadata)


@cache
def _all_finite() -> Callable[[Any], jax.Array]:
    """Return a jitted function from parameters to whether all of them are finite, bool[].

    The loss alone does not tell: a NaN in one image has given a finite loss and gradients with NaN
    in a program that XLA compiled for CPUs.
    """

    def all_finite(params: Any) -> jax.Array:
        # One vector needs one reduction, where many arrays need one for each shape.
        vector = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        return jnp.isfinite(vector).all()

    return jax.jit(all_finite, compiler_options=run_once_options())


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The steps of a run, with everything that is due between them.

    Attributes:
        run: The run.
        train_steps: The compiled steps.
        complete: From a state to the one that is evaluated and saved, whose averages have the
            statistics that belong to them.
        evaluate: From a completed state to its evaluation.
        goodput: Measures what the time is spent on.
        watchdog: Is told about progress.
        hooks: Called after steps whose metrics are recorded.
    """

    run: Run
    train_steps: TrainSteps
    complete: Callable[[TrainState], TrainState]
    evaluate: Callable[[TrainState], Evaluation]
    goodput: Goodput
    watchdog: Watchdog
    hooks: RunHooks

    def __call__(
        self,
        state: TrainState,
        batches: Iterator[Any],
        workdir: Workdir,
        console: Console,
        saver: Saver,
        profiler: Profile,
    ) -> tuple[TrainState, Evaluation]:
        """Do the remaining steps; return the last state and its evaluation."""
        start_step, total_steps = int(state.step), self.run.total_steps
        with (
            MetricWriter(
                workdir.metrics, workdir.tensorboard, start_step=start_step, active=is_primary()
            ) as writer,
            ProgressLine(console, total_steps=total_steps, start_step=start_step) as progress,
            Preemption() as preemption,
        ):
            records = Records(self.run, writer, progress)
            return self._steps(state, batches, records, saver, profiler, preemption)

    def _steps(
        self,
        state: TrainState,
        batches: Iterator[Any],
        records: Records,
        saver: Saver,
        profiler: Profile,
        preemption: Preemption,
    ) -> tuple[TrainState, Evaluation]:
        config, total_steps, step_key = self.run.config, self.run.total_steps, self.run.step_key
        evaluation: Evaluation | None = None
        for step in range(int(state.step) + 1, total_steps + 1):
            with self.goodput.spent_on("data"):
                batch = next(batches)
            with self.goodput.spent_on("compile"):
                started = time.perf_counter()
                train_step = self.train_steps.at(step, waiting=self.watchdog.done)
                records.exclude(time.perf_counter() - started)
            with self.goodput.spent_on("step"):
                profiler.before(step, state)
                state, metrics = train_step(state, batch, step_key)
                profiler.after(step, state)
            self.watchdog.watch(metrics)
            records.add(metrics)

            last = step == total_steps
            # Asked once a step: the signal may come at any moment.
            preempted = preemption.ends_after(step)
            evaluation_due = self.run.evaluation_due(step)
            recorded = preempted or evaluation_due or step % config.log_every_steps == 0
            save_due = saver.due(step, recorded=recorded) or preempted
            if not (recorded or save_due):
                continue

            # Fetching the metrics waits for the devices. It happens only here, before anything else
            # that waits, so that the throughput measures training alone.
            with self.goodput.spent_on("step"):
                fetched, facts = self._checked(records.fetch(), state, step, saver)
            means = mean_metrics(fetched) if fetched else {}
            values = records.train(step, means | facts)
            saver.add(fetched)
            # A run that stops early counts its evaluations, so it does not leave one out then.
            evaluated = evaluation_due and (last or saver.ranks_evaluations or not preempted)
            if evaluated or save_due:
                # Commands read checkpoints of runs that go on or were interrupted.
                state = self.complete(state)
            if evaluated:
                evaluation = self.evaluate(state)
                records.evaluation(step, evaluation.metrics)
                saver.rank(step, evaluation)
            if save_due or saver.stopped or saver.is_best(step):
                with self.goodput.spent_on("checkpoint"):
                    saver.save(state, step, evaluation)
                self.watchdog.done()
            # After saving, so that an error in a hook does not lose the step.
            self.hooks.step(step, values)
            if evaluated and evaluation:
                self.hooks.evaluation(step, evaluation.metrics, state.evaluated)
            self.watchdog.done()
            if saver.stopped:
                break
            if preempted and not last:
                raise preemption.error(step, total_steps)
            records.restart_clock()
        assert evaluation is not None, "the last step is always evaluated"
        return state, evaluation

    def _checked(
        self, fetched: list[Metrics], state: TrainState, step: int, saver: Saver
    ) -> tuple[list[Metrics], dict[str, float]]:
        """Return the metrics of the steps whose loss is finite, and facts about skipped steps.

        Raises:
            TrainingDivergedError: The run cannot go on.
        """
        remedy = (
            f"the last checkpoint is of step {saver.latest_step}; lower optimizer.learning_rate or "
            "lengthen schedule.warmup_epochs"
        )
        guard, loss_scale, finite = jax.device_get(
            (state.guard, state.loss_scale, _all_finite()(state.params))
        )
        if guard and (count := int(guard["in_a_row"])) >= self.run.config.guard.max_in_a_row:
            raise TrainingDivergedError(
                f"{count} steps in a row were skipped by step {step}, because their loss or "
                f"gradients were not finite: {diagnosis(guard, state.params)}; {remedy}"
            )
        if not guard and not math.isfinite(loss := mean_metrics(fetched)["loss"]):
            raise TrainingDivergedError(f"the loss became {loss} by step {step}; {remedy}")
        if not finite:
            raise TrainingDivergedError(f"the parameters were not finite by step {step}; {remedy}")
        if not guard:
            return fetched, {}
        facts = {"skipped_steps": float(guard["skipped"])}
        if loss_scale:
            facts["loss_scale"] = float(loss_scale["scale"])
        return [metrics for metrics in fetched if math.isfinite(metrics.loss)], facts
