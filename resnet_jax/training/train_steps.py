"""The compiled training steps of a run: one for each size of images, and one for the head alone."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from resnet_jax.training.phases import Phase
from resnet_jax.training.setup import Run
from resnet_jax.training.step import TrainStep


class Program(NamedTuple):
    """What distinguishes the compiled training steps of a run.

    Attributes:
        phase: The sizes of images and batches.
        head_only: Whether only the head is trained.
    """

    phase: Phase
    head_only: bool


_THREAD = "compile"


def is_compiling() -> bool:
    """Return whether a thread of this process compiles a program.

    Nothing can interrupt it, and Python waits for it when the process ends in the regular way.  A
    daemon thread would be no remedy: Python 3.11 aborts if the compilation ends after Python.
    """
    return any(thread.name.startswith(_THREAD) for thread in threading.enumerate())


class TrainSteps:
    """The compiled training step for each step of a run.

    A thread compiles the next program while the steps of the current one run.  A process that ends
    in the meantime would wait for it, see `is_compiling`.

    Args:
        run: The run.
        compiled: Programs that are compiled already.
    """

    def __init__(self, run: Run, compiled: dict[Program, TrainStep] | None = None) -> None:
        self._run = run
        self._compiled: dict[Program, Future[TrainStep]] = {}
        for program, train_step in (compiled or {}).items():
            self._compiled[program] = Future()
            self._compiled[program].set_result(train_step)

    def at(self, step: int, *, waiting: Callable[[], object] = lambda: None) -> TrainStep:
        """Return the compiled step for a step, counted from 1, and begin to compile the next one.

        Args:
            step: Number of the step.
            waiting: Called every second while the step is not compiled yet.
        """
        future = self._compile(self._program(step))
        while not wait([future], timeout=1).done:
            waiting()
        boundaries = [self._run.head_steps, *(p.first_step for p in self._run.phases.phases)]
        later = [done for done in boundaries if step <= done < self._run.total_steps]
        if later:
            self._compile(self._program(min(later) + 1))
        return future.result()

    def compiled_at(self, step: int) -> TrainStep:
        """Return the compiled step for a step, or another one if the run has not compiled that."""
        some = next(reversed(self._compiled.values()))
        return self._compiled.get(self._program(step), some).result()

    def _program(self, step: int) -> Program:
        return Program(self._run.phases.after(step - 1), step <= self._run.head_steps)

    def _compile(self, program: Program) -> Future[TrainStep]:
        if program not in self._compiled:
            run = self._run.of_phase(program.phase)
            compiler = ThreadPoolExecutor(1, thread_name_prefix=_THREAD)
            compile_step = run.compile_head_step if program.head_only else run.compile_train_step
            self._compiled[program] = compiler.submit(compile_step)
            # The thread ends with its task.
            compiler.shutdown(wait=False)
        return self._compiled[program]
