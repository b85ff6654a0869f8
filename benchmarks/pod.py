"""Plan a pod: what a run on 8 to 1,024 devices needs from its hosts, and where its time goes.

    python -m benchmarks.pod

Nothing is trained. This is a model of ResNet-50 at 224 pixels with BatchNorm within each device.
Its inputs are the figures for one device and one core in `INPUTS` and in `benchmarks.scaling`, with
their sources. Four losses are modeled:

- the exchange of gradients, as in `benchmarks.scaling`, overlapped with the backward pass;
- stragglers: a step takes as long as its slowest device. Step times are drawn from a normal
  distribution, and the mean of the maximum is computed by simulation;
- checkpoints: training waits for `Checkpoints.save`, whose time has been measured;
- failures: work since the last checkpoint is lost, and the run has to start again. The time between
  failures is inversely proportional to the number of devices.
"""

import argparse
import dataclasses

import numpy as np

from benchmarks.scaling import CLUSTERS, Cluster, Collective, efficiency

TRAIN_IMAGES = 1_281_167


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the model assumes besides the clusters of `benchmarks.scaling`.

    Attributes:
        images_per_core: Images that a core reads, decodes and crops in a second of CPU time:
            docs/performance.md, "Input pipeline", 500x375 pixels, linear.
        images_per_process: Images that one process loads in a second with any number of threads:
            `benchmarks.input_scaling`.
        image_bytes: Mean size of ImageNet's training files (138 GB / 1,281,167).
        gradient_bytes: Bytes of the gradients, which travel in two exchanges: docs/clusters.md.
        state_bytes: Size of a checkpoint of parameters, momentum and statistics.
        save_seconds: Time for which a save delays training, mostly to compute digests. It was
            measured on two CPU cores: docs/performance.md, "Checkpoints".
        save_every_seconds: Time between checkpoints, the default of `CheckpointConfig`.
        variation: Standard deviation of the time of a step on one device, as a share of its mean.
            This is an assumption.
        failure_hours: Device hours between failures. Llama 3's training had 419 unexpected
            interruptions in 54 days on 16,384 GPUs (Grattafiori et al. 2024, section 3.3.4).
        restart_seconds: Time from a failure to the next step. This is an assumption, and depends on
            the cluster's scheduler.
    """

    images_per_core: float = 786.0
    images_per_process: float = 5000.0
    image_bytes: float = 138e9 / TRAIN_IMAGES
    gradient_bytes: int = 102_440_000
    state_bytes: float = 205e6
    save_seconds: float = 0.28
    save_every_seconds: float = 600.0
    variation: float = 0.02
    failure_hours: float = 54 * 24 * 16_384 / 419
    restart_seconds: float = 300.0


INPUTS = Inputs()
DEVICES_PER_HOST = {"H100": 8, "TPU v4": 4, "TPU v5e": 4}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The needs and losses of a run.

    Attributes:
        images_per_second: Speed of the whole run, after all losses.
        host_images: Images per second that each host has to load.
        host_cores: Cores of each host that this takes.
        host_processes: Processes of each host that load images, because of the interpreter lock.
        host_megabytes: Megabytes per second that each host reads.
        exchange: Share of the time in which devices wait for gradients.
        stragglers: Share in which they wait for the slowest device.
        checkpoints: Share in which they wait for checkpoints.
        failures: Share that failures cost.
        save_megabytes: Megabytes per second to the file system, for one checkpoint to be complete
            before the next one begins.
    """

    images_per_second: float
    host_images: float
    host_cores: float
    host_processes: int
    host_megabytes: float
    exchange: float
    stragglers: float
    checkpoints: float
    failures: float
    save_megabytes: float


def slowest(devices: int, variation: float, steps: int = 2000) -> float:
    """Return the mean time of the slowest device, if the mean time of a device is 1."""
    rng = np.random.default_rng(0)
    return float(1 + variation * rng.standard_normal((steps, devices)).max(axis=1).mean())


def plan(cluster: Cluster, devices: int, devices_per_host: int, inputs: Inputs = INPUTS) -> Plan:
    """Return the plan for a number of devices."""
    exchanges = [Collective("all-reduce", inputs.gradient_bytes // 2, devices)] * 2
    exchange = 1 - efficiency(exchanges, cluster, overlap=True)
    stragglers = 1 - 1 / slowest(devices, inputs.variation)
    checkpoints = inputs.save_seconds / (inputs.save_seconds + inputs.save_every_seconds)
    between = inputs.failure_hours * 3600 / devices
    lost = inputs.save_every_seconds / 2 + inputs.restart_seconds
    failures = lost / (between + lost)
    kept = (1 - exchange) * (1 - stragglers) * (1 - checkpoints) * (1 - failures)
    speed = devices * cluster.images_per_second * kept
    # Hosts load images while the run trains, at the speed without checkpoints and failures.
    host = devices_per_host * cluster.images_per_second * (1 - exchange) * (1 - stragglers)
    return Plan(
        images_per_second=speed,
        host_images=host,
        host_cores=host / inputs.images_per_core,
        host_processes=-int(-host // inputs.images_per_process),
        host_megabytes=host * inputs.image_bytes / 1e6,
        exchange=exchange,
        stragglers=stragglers,
        checkpoints=checkpoints,
        failures=failures,
        save_megabytes=inputs.state_bytes / inputs.save_every_seconds / 1e6,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 256, 1024])
    options = parser.parse_args()
    print("| devices | images/s | 90 epochs | exchange | stragglers | checkpoints | failures |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    hosts = []
    for name, cluster in CLUSTERS.items():
        if "Ethernet" in name:
            continue  # With overlap, the exchange costs nothing there either.
        per_host = next(n for kind, n in DEVICES_PER_HOST.items() if name.startswith(kind))
        for devices in options.devices:
            found = plan(cluster, devices, per_host)
            minutes = 90 * TRAIN_IMAGES / found.images_per_second / 60
            losses = (found.exchange, found.stragglers, found.checkpoints, found.failures)
            shares = " | ".join(f"{100 * loss:.2f} %" for loss in losses)
            print(
                f"| {devices:,} x {name.partition(',')[0]} | {found.images_per_second:,.0f} "
                f"| {minutes:,.1f} min | {shares} |"
            )
            if devices == min(options.devices):
                hosts.append(
                    f"| {per_host} x {name.partition(',')[0]} | {found.host_images:,.0f} "
                    f"| {found.host_cores:.0f} | {found.host_processes} "
                    f"| {found.host_megabytes:,.0f} MB/s |"
                )
    print("\n| host | images/s to load | cores | processes | reads |")
    print("|---|---:|---:|---:|---:|")
    print("\n".join(hosts))


if __name__ == "__main__":
    main()
