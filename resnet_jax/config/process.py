"""Configuration of the processes of a run, which may change when a run is continued."""

import dataclasses

from resnet_jax.config.validation import require, require_positive


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """How several processes train one model together.

    This is not part of the experiment: a run can be continued with another number of processes.
    """

    coordinator_address: str | None = None
    """HOST:PORT at which process 0 listens. All processes need the same value. Leave it out to
    train in one process."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Number of this process, counted from 0."""
    auto: bool = False
    """Get the address, the number of processes and the number of this process from the cluster:
    Slurm, Open MPI, Kubernetes, GKE or Cloud TPU."""
    initialization_timeout: int = 300
    """Time in seconds within which all processes must connect. Raise it if nodes start slowly."""
    heartbeat_timeout: int = 30
    """Time in seconds after which a process that does not respond ends the run. Raise it on
    unreliable networks."""

    @property
    def requested(self) -> bool:
        """Whether the run uses several processes."""
        return self.auto or self.coordinator_address is not None

    def __post_init__(self) -> None:
        require_positive(self, "initialization_timeout", "heartbeat_timeout")
        given = (self.coordinator_address, self.num_processes, self.process_id)
        if self.auto:
            require(
                given == (None, None, None),
                "distributed.auto finds coordinator_address, num_processes and process_id; give "
                "either it or them",
            )
        elif given != (None, None, None):
            require(
                None not in given,
                "distributed needs coordinator_address, num_processes and process_id, not only "
                "some of them; or auto=True",
            )
            host, _, port = str(self.coordinator_address).rpartition(":")
            require(
                bool(host) and port.isdigit() and 0 < int(port) < 2**16,
                f"distributed.coordinator_address must be HOST:PORT, not "
                f"{self.coordinator_address!r}",
            )
            require(
                0 <= int(self.process_id or 0) < int(self.num_processes or 0),
                f"distributed.process_id must be from 0 to below num_processes "
                f"({self.num_processes}), not {self.process_id}",
            )


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """A trace of some training steps, written to the run directory for xprof and TensorBoard."""

    steps: tuple[int, int] | None = None
    """First and last step to trace, counted from 1. The run must not have completed them yet.
    Leave it out to trace nothing."""

    def __post_init__(self) -> None:
        require(
            self.steps is None or 1 <= self.steps[0] <= self.steps[1],
            f"profile.steps must be a first step of at least 1 and a last step, not {self.steps}",
        )

    def check_steps(self, total_steps: int) -> None:
        """Raise `ConfigError` if the run ends before the last step to trace."""
        require(
            self.steps is None or self.steps[1] <= total_steps,
            f"profile.steps {self.steps} is out of reach: the run has {total_steps} steps",
        )
