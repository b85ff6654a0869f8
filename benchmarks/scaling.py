"""Count what devices exchange in a training step of ResNet-50, and model how it scales.

The first part counts.  For 1, 2, 4, ... devices, forced on this CPU, the trainer's step is compiled
in a process of its own, and its collectives and their bytes are counted in XLA's optimized HLO.
Nothing is executed.  The images are small, because neither gradients nor statistics depend on their
size.

The second part is a model and not a measurement.  It computes the weak-scaling efficiency t / (t +
exchange), where t is the time of a step on one device.  As in NCCL's tuning model, an exchange of n
bytes by p devices takes ``launch + 2 (p - 1) hop`` within a node, ``2 log2(nodes) hop`` between
nodes, and ``2 (p - 1) / p n / bandwidth``.  Between nodes, each device sends its share of the sum
of its node.  With overlap, gradients travel during the backward pass, two thirds of the step.  The
statistics of BatchNorm never overlap, because the next layer waits for them.

    python -m benchmarks.scaling --json scaling.json --figure docs/images/scaling.png
"""

import argparse
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

IMAGES = 8
"""Number of images per device when collectives are counted."""

BATCH_NORM = {"global": "batch", "groups of 2 devices": 2 * IMAGES, "per device": "device"}
"""Names of the ways to share statistics, and the ``bn_group_size`` of each."""

GRADIENT_BYTES = 2**20
"""Larger collectives are gradients; the statistics of a layer have a few kilobytes."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between devices.

    Attributes:
        kind: Name of the operation in HLO, such as ``all-reduce``.
        bytes: Bytes on each device.
        devices: Number of devices in a group.
    """

    kind: str
    bytes: int
    devices: int


@dataclasses.dataclass(frozen=True)
class Link:
    """One level of an interconnect.

    Attributes:
        devices: Number of devices or lower-level groups that it connects; 0 means all.
        bandwidth: Bytes per second that a device sends while it receives as many.
        hop: Seconds until the first byte arrives.
    """

    devices: int
    bandwidth: float
    hop: float


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Devices and the links between them.

    Attributes:
        images_per_second: Training speed of one device.
        batch: Number of images per device.
        launch: Seconds until a collective begins.
        links: The links from the nearest to the farthest.
    """

    images_per_second: float
    batch: int
    launch: float
    links: tuple[Link, ...]


# Bandwidths are the vendors' figures for one direction.  NVLink 4 has 900 GB/s in both directions
# together per GPU.  A TPU link has 45 GB/s; a v4 has six and a v5e four
# (https://jax-ml.github.io/scaling-book/tpus).  The latencies of GPUs come from NCCL's tuning model
# (src/graph/tuning.cc, tree, LL protocol); those of Ethernet and TPUs are assumptions.  Images per
# second come from MLPerf Training v4.0 (H100) and v0.7 (TPU v4).  None is published for the TPU
# v5e, so its value is what its memory allows (0.82 TB/s, 357 MB per image).
_NVSWITCH = Link(8, 450e9, 0.6e-6)
CLUSTERS = {
    "H100, NVSwitch, InfiniBand 400 Gb/s a GPU": Cluster(
        7160, 256, 6.8e-6, (_NVSWITCH, Link(0, 50e9, 5e-6))
    ),
    "H100, NVSwitch, Ethernet 100 Gb/s a node": Cluster(
        7160, 256, 6.8e-6, (_NVSWITCH, Link(0, 12.5e9 / 8, 20e-6))
    ),
    "TPU v4, ICI": Cluster(3478, 256, 2e-6, (Link(0, 6 * 45e9, 1e-6),)),
    "TPU v5e, ICI": Cluster(2300, 256, 2e-6, (Link(0, 4 * 45e9, 1e-6),)),
}


def exchange_seconds(collective: Collective, cluster: Cluster) -> float:
    """Return the modeled seconds of a collective."""
    seconds, remaining, share = cluster.launch, collective.devices, float(collective.bytes)
    for link in cluster.links:
        parts = min(remaining, link.devices or remaining)
        if parts > 1:
            hops = parts - 1 if link.devices else math.ceil(math.log2(parts))
            seconds += 2 * hops * link.hop + 2 * (parts - 1) / parts * share / link.bandwidth
        remaining, share = math.ceil(remaining / parts), share / parts
    return seconds


def efficiency(collectives: list[Collective], cluster: Cluster, *, overlap: bool) -> float:
    """Return the share of a step's time that is not spent waiting for other devices."""
    step = cluster.batch / cluster.images_per_second
    gradients = statistics = 0.0
    for collective in collectives:
        seconds = exchange_seconds(collective, cluster)
        if collective.bytes > GRADIENT_BYTES:
            gradients += seconds
        else:
            statistics += seconds
    if overlap:
        gradients = max(0.0, gradients - 2 / 3 * step)
    return step / (step + gradients + statistics)


def parse(hlo: str, num_devices: int) -> list[Collective]:
    """Return the collectives in the text of a compiled program that involve several devices."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = []
    for line in hlo.splitlines():
        match = re.search(rf"= (?P<shapes>.*?) (?P<kind>{kinds})(-start)?\(", line)
        if match is None:
            continue
        size = sum(
            math.prod(int(n) for n in dimensions.split(",") if n) * int(bits) // 8
            for bits, dimensions in re.findall(r"\b[a-z]+(\d+)\[([\d,]*)\]", match["shapes"])
        )
        devices = num_devices
        if groups := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
            devices = int(groups[1])
        elif groups := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
            devices = groups[1].count(",") + 1
        if devices > 1:
            found.append(Collective(match["kind"], size, devices))
    return found


def count(num_devices: int, kind: str) -> list[Collective]:
    """Compile the step for all devices of this process, and return its collectives."""
    import jax

    from resnet_jax.config import ModelConfig, SyntheticConfig, TrainConfig
    from resnet_jax.training.setup import Run

    batch = IMAGES * num_devices
    # Groups need at least two devices.
    bn_group_size: Any = BATCH_NORM[kind] if num_devices > 1 else "batch"
    config = TrainConfig(
        model=ModelConfig("resnet50", bn_group_size=bn_group_size),
        data=SyntheticConfig(image_size=32, train_examples=batch, test_examples=num_devices),
        batch_size=batch,
        epochs=10,
    )
    assert jax.device_count() == num_devices
    step: Any = Run.create(config).compile()[0]
    return parse(step.func.as_text(), num_devices)


def count_apart(num_devices: int, kind: str) -> list[Collective]:
    """Call `count` in a process with the given number of devices."""
    flags = f"--xla_force_host_platform_device_count={num_devices} "
    # The code is not executed, so compile it as fast as possible.
    flags += "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    output = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.scaling", "--count", str(num_devices), kind],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        text=True,
    )
    return [Collective(**fields) for fields in json.loads(output.splitlines()[-1])]


Counts = dict[int, dict[str, list[Collective]]]


def print_counts(counts: Counts) -> None:
    """Print a Markdown table of collectives and bytes per step."""
    print("| devices | " + " | ".join(f"{kind}: collectives | MB" for kind in BATCH_NORM) + " |")
    print("|---:" * (1 + 2 * len(BATCH_NORM)) + "|")
    for num_devices, kinds in counts.items():
        cells = [str(num_devices)]
        for collectives in kinds.values():
            cells += [str(len(collectives)), f"{sum(c.bytes for c in collectives) / 1e6:.2f}"]
        print("| " + " | ".join(cells) + " |")


def print_model(counts: Counts) -> None:
    """Print a Markdown table of efficiencies on the most devices, without and with overlap."""
    most = max(counts)
    print(f"\n| {most} devices | " + " | ".join(f"{kind} | overlapped" for kind in BATCH_NORM), "|")
    print("|---" + "|---:" * 2 * len(BATCH_NORM) + "|")
    for name, cluster in CLUSTERS.items():
        cells = [
            f"{100 * efficiency(collectives, cluster, overlap=overlap):.1f} %"
            for collectives in counts[most].values()
            for overlap in (False, True)
        ]
        print("| " + " | ".join([name, *cells]) + " |")


def draw(counts: Counts, path: Path) -> None:
    """Draw the model, with one panel per cluster."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True)
    for axis, (name, cluster) in zip(axes.flat, CLUSTERS.items(), strict=True):
        for i, kind in enumerate(BATCH_NORM):
            for overlap in (False, True):
                values = [
                    100 * efficiency(kinds[kind], cluster, overlap=overlap)
                    for kinds in counts.values()
                ]
                # Earlier lines are wider, so that they stay visible beneath equal ones.
                style = {"linestyle": "-" if overlap else "--", "linewidth": 3.5 - i}
                label = f"BatchNorm {kind}" if overlap else None
                axis.plot(list(counts), values, label=label, color=f"C{i}", **style)
        axis.set_title(name, fontsize=10)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(counts), [str(num_devices) for num_devices in counts])
        axis.grid(alpha=0.3)
    axes[0, 0].plot([], [], "k--", label="gradients not overlapped")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    figure.supxlabel("devices", fontsize=10)
    figure.supylabel("weak-scaling efficiency, % (model)", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Count, print the tables, and write the files that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--json", type=Path, help="file for counts and efficiencies")
    parser.add_argument("--figure", type=Path, help="file for the figure")
    parser.add_argument("--count", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        num_devices, kind = options.count
        collectives = count(int(num_devices), kind)
        print(json.dumps([dataclasses.asdict(collective) for collective in collectives]))
        return

    counts = {n: {kind: count_apart(n, kind) for kind in BATCH_NORM} for n in options.devices}
    print_counts(counts)
    print_model(counts)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "collectives": {
                        str(n): {
                            kind: [dataclasses.asdict(c) for c in collectives]
                            for kind, collectives in kinds.items()
                        }
                        for n, kinds in counts.items()
                    },
                    "clusters": {name: dataclasses.asdict(c) for name, c in CLUSTERS.items()},
                    "efficiency": {
                        name: {
                            str(n): {
                                kind: {
                                    "exposed": efficiency(collectives, cluster, overlap=False),
                                    "overlapped": efficiency(collectives, cluster, overlap=True),
                                }
                                for kind, collectives in kinds.items()
                            }
                            for n, kinds in counts.items()
                        }
                        for name, cluster in CLUSTERS.items()
                    },
                },
                indent=1,
            )
        )
    if options.figure:
        draw(counts, options.figure)


if __name__ == "__main__":
    main()
