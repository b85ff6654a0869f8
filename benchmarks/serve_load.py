"""Measure `resnet-jax serve` under load, on this machine.

    python -m benchmarks.serve_load --model resnet18 --seconds 60

A network with random weights is served by a process of its own.  Clients, each with one connection,
send one request after another:

- first photographs of 500x375 pixels only, to servers that compute one image at a time and that
  compute batches, in turns;
- then photographs mixed with requests that must be refused: truncated and random files, a small
  file that announces 400 million pixels, a body above the limit, and photographs of 24 million
  pixels, which are answered.

Every answer must be one of the intended ones: 200, the 4xx of its kind, or 503 with Retry-After.
The tables have the throughput, the percentiles of the time until an answer, the processor time of
the server, and its memory over time.  The clients share the machine with the server.
"""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import http.client
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.input_pipeline import make_images

_MIB = 2**20
# Share of each kind of request in the mixed load.
_MIX = {
    "photograph": 0.85,
    "photograph, 24 MP": 0.01,
    "truncated": 0.05,
    "random bytes": 0.04,
    "400 MP announced": 0.03,
    "20 MiB": 0.02,
}
_REFUSALS = {"truncated": 400, "random bytes": 400, "400 MP announced": 413, "20 MiB": 413}
# Interval at which the memory is read, in seconds.
_INTERVAL = 0.5


@dataclasses.dataclass
class Load:
    """What clients have seen.

    Attributes:
        seconds: For each kind of request and status, the time of each request.
        unintended: Answers that should not have been given.
        memory: Time since the start in seconds, and memory of the server in MiB.
        wall: Duration in seconds.
        cpu: Processor time of the server in seconds.
    """

    seconds: dict[tuple[str, int], list[float]]
    unintended: list[str]
    memory: list[tuple[float, float]]
    wall: float
    cpu: float

    @property
    def answered(self) -> list[float]:
        """Times of all requests that were answered with 200."""
        return [t for (_, status), times in self.seconds.items() if status == 200 for t in times]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="name of the network")
    parser.add_argument("--image-size", type=int, default=224, help="input size in pixels")
    parser.add_argument("--max-batch", type=int, default=16, help="largest batch")
    parser.add_argument("--clients", type=int, default=32, help="number of clients, at most 256")
    parser.add_argument("--seconds", type=float, default=60, help="duration of the mixed load")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the comparison")
    parser.add_argument("--round-seconds", type=float, default=15, help="duration of a round")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    if options.clients > 256 or options.seconds > 600 or options.round_seconds > 600:
        parser.error("at most 256 clients and 600 seconds")
    with tempfile.TemporaryDirectory() as temporary:
        repository = Path(temporary) / "network"
        write_network(repository, options.model, options.image_size)
        bodies = make_bodies(Path(temporary))
        ratio = compare(options, repository, bodies["photograph"])
        with served(repository, options.max_batch) as (process, port):
            print(f"\nmixed requests, {options.clients} clients, {options.seconds:g} s\n")
            load = run(process.pid, port, bodies, _MIX, options.clients, options.seconds)
    report(load)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "options": {**vars(options), "json": None},
                    "batching": ratio,
                    "p99_seconds": percentile(load.answered, 0.99),
                    "memory_mib": load.memory,
                    "unintended": load.unintended,
                },
                indent=1,
            )
        )
    if load.unintended:
        sys.exit(f"{len(load.unintended)} unintended answers, such as {load.unintended[0]}")


def write_network(directory: Path, name: str, image_size: int) -> None:
    """Write a network with random weights and 1,000 classes, in timm's layout."""
    import jax

    from resnet_jax import create_model, save_weights

    directory.mkdir()
    model = create_model(name)
    images = np.zeros((1, image_size, image_size, 3), np.float32)
    save_weights(
        model, model.init(jax.random.key(0), images, train=False), directory / "model.safetensors"
    )
    config = {
        "architecture": name,
        "num_classes": 1000,
        "pretrained_cfg": {
            "input_size": [3, image_size, image_size],
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
    }
    (directory / "config.json").write_text(json.dumps(config))


def make_bodies(directory: Path) -> dict[str, list[bytes]]:
    """Return some bodies of each kind of request."""
    make_images(directory / "photographs", 32)
    photos = [path.read_bytes() for path in sorted((directory / "photographs").rglob("*.jpg"))]
    large = io.BytesIO()
    with Image.open(io.BytesIO(photos[0])) as photo:
        photo.resize((6000, 4000)).save(large, "JPEG")
    rng = np.random.default_rng(0)
    return {
        "photograph": photos,
        "photograph, 24 MP": [large.getvalue()],
        "truncated": [photo[: len(photo) // 2] for photo in photos[:4]],
        "random bytes": [rng.bytes(50_000), b"\xff\xd8\xff" + rng.bytes(50_000)],
        "400 MP announced": [png_header(20_000, 20_000)],
        "20 MiB": [bytes(20 * _MIB)],
    }


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file of a few bytes that announces many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = chunk(b"IDAT", zlib.compress(bytes(9)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\0\0\0") + pixels


@contextlib.contextmanager
def served(repository: Path, max_batch: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Return a server that is ready, and its port."""
    command = [sys.executable, "-m", "resnet_jax", "serve", str(repository), "--port", "0"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--max-batch", str(max_batch)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)$", process.stdout.readline().strip())
            if not found:
                raise RuntimeError("the server has not started")
            yield process, int(found[1])
        finally:
            process.terminate()
            if process.wait(120):
                raise RuntimeError(f"the server has ended with code {process.returncode}")


def compare(
    options: argparse.Namespace, repository: Path, photos: list[bytes]
) -> dict[int, list[float]]:
    """Print the throughput of servers without and with batches, and return it for each round."""
    sizes = (1, options.max_batch)
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    loads: dict[int, list[float]] = {size: [] for size in sizes}
    cpu: dict[int, list[float]] = {size: [] for size in sizes}
    with contextlib.ExitStack() as stack:
        servers = {size: stack.enter_context(served(repository, size)) for size in sizes}
        for _ in range(options.rounds):
            for size, (process, port) in servers.items():
                load = run(
                    process.pid,
                    port,
                    {"photograph": photos},
                    {"photograph": 1.0},
                    options.clients,
                    options.round_seconds,
                )
                assert not load.unintended, load.unintended[0]
                rates[size].append(len(load.answered) / load.wall)
                loads[size] += load.answered
                cpu[size].append(1000 * load.cpu / len(load.answered))
    print(
        f"photographs only, {options.clients} clients, {options.model}, {options.image_size} px\n"
    )
    print("| largest batch | images/s | min - max | x batch 1 | p50 s | p99 s | CPU ms/image |")
    print("|---|---|---|---|---|---|---|")
    for size in sizes:
        median = statistics.median(rates[size])
        times = [percentile(loads[size], share) for share in (0.5, 0.99)]
        print(
            f"| {size} | {median:.1f} | {min(rates[size]):.1f} - {max(rates[size]):.1f} "
            f"| {median / statistics.median(rates[1]):.2f} | {times[0]:.2f} | {times[1]:.2f} "
            f"| {statistics.median(cpu[size]):.1f} |"
        )
    return rates


def run(
    pid: int,
    port: int,
    bodies: dict[str, list[bytes]],
    mix: dict[str, float],
    clients: int,
    seconds: float,
) -> Load:
    """Send requests from several clients for some seconds."""
    load = Load(collections.defaultdict(list), [], [], 0.0, -cpu_seconds(pid))
    start = time.perf_counter()
    end = start + seconds
    threads = [
        threading.Thread(target=send, args=(load, port, bodies, mix, end, seed))
        for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        load.memory.append((time.perf_counter() - start, resident_mib(pid)))
        time.sleep(_INTERVAL)
    load.wall = time.perf_counter() - start
    load.cpu += cpu_seconds(pid)
    return load


def send(
    load: Load,
    port: int,
    bodies: dict[str, list[bytes]],
    mix: dict[str, float],
    end: float,
    seed: int,
) -> None:
    """Send one request after another until the end."""
    rng = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while time.perf_counter() < end:
        (kind,) = rng.choices(list(mix), list(mix.values()))
        started = time.perf_counter()
        try:
            connection.request("POST", "/predict", rng.choice(bodies[kind]))
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            load.unintended.append(f"{kind}: {error!r}")
            connection.close()
            continue
        load.seconds[kind, answer.status].append(time.perf_counter() - started)
        if answer.status == 503 and answer.headers["Retry-After"]:
            time.sleep(float(answer.headers["Retry-After"]))
        elif answer.status != _REFUSALS.get(kind, 200):
            load.unintended.append(f"{kind}: {answer.status} {content[:200]!r}")
    connection.close()


def report(load: Load) -> None:
    """Print the answers to each kind of request, and the memory of the server."""
    print("| request | status | number | p50 s | p95 s | p99 s | max s |")
    print("|---|---|---|---|---|---|---|")
    for (kind, status), times in sorted(load.seconds.items()):
        cells = [f"{percentile(times, share):.2f}" for share in (0.5, 0.95, 0.99, 1)]
        print(f"| {kind} | {status} | {len(times):,} | {' | '.join(cells)} |")
    total = sum(map(len, load.seconds.values()))
    print(
        f"\n{total:,} requests in {load.wall:.0f} s ({total / load.wall:.0f}/s); p99 of those with "
        f"status 200: {percentile(load.answered, 0.99):.2f} s; {len(load.unintended)} unintended "
        "answers"
    )
    print("\n| seconds | memory MiB, median | max |")
    print("|---|---|---|")
    parts = 4
    for part in range(parts):
        first, last = (load.wall * i / parts for i in (part, part + 1))
        values = [mib for at, mib in load.memory if first <= at < last]
        if values:
            middle, most = statistics.median(values), max(values)
            print(f"| {first:.0f} - {last:.0f} | {middle:.0f} | {most:.0f} |")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not exceeded by a share of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


if __name__ == "__main__":
    main()
