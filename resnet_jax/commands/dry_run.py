"""Show what a training run would do and cost, without training."""

from resnet_jax.commands.mistakes import mistakes
from resnet_jax.config import TrainConfig

# Height of the plot of the schedule, and its largest width, in characters.
_HEIGHT, _WIDTH = 8, 80


def run(config: TrainConfig, *, keep_freed_memory: bool) -> int:
    """Print steps, schedule, size, memory and estimated time, and return the exit code.

    Args:
        config: The experiment.
        keep_freed_memory: Whether the steps keep the memory that they free, as in the run.
    """
    if keep_freed_memory:
        from resnet_jax.ops import host_memory

        host_memory.keep_freed_memory()
    from rich.console import Console

    with mistakes():
        from resnet_jax.report.charts import LineChart
        from resnet_jax.report.terminal import draw_text
        from resnet_jax.training.estimation import estimate, in_words
        from resnet_jax.training.rundir.console import print_header

        found = estimate(config)
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    print_header(console, f"Training {config.model.name} would take", in_words(found))
    chart = LineChart("Learning rate", "step", [found.schedule], from_zero=True)
    if plot := draw_text(chart, width=min(_WIDTH, console.width), height=_HEIGHT):
        console.print()
        console.print(plot)
    return 0
