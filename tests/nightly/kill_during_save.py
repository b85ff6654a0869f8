"""Kill a process at a random moment of an asynchronous save, and check what is left on the disk.

    python tests/nightly/kill_during_save.py [TIMES]

A child process saves one step after another, each with 19 MB that cannot be compressed.  SIGKILL
ends it at a random moment, mostly while files are being written.  These checks follow:

- The newest checkpoint is complete and contains, bit for bit, what its step has saved.
- It is not older than the last step whose save had ended.
- The unfinished files of the interrupted save are removed.
"""

import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.config import CheckpointConfig
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.sharding import make_mesh, replicated
from resnet_jax.training.state import TrainState
from resnet_jax.weights.formats.digests import describe_arrays

CONFIG = CheckpointConfig(keep_latest=2, keep_best=1)
_SHAPE = (1600, 3000)


def make_state(step: int) -> TrainState:
    """Return a state with 19 MB of noise that depends only on the step."""
    noise = np.random.default_rng(step).integers(0, 2**32, _SHAPE, np.uint32)
    # Clearing the highest bit of the exponent makes sure that no number is NaN.
    kernel = (noise & 0x3FFFFFFF).view(np.float32)
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params={"kernel": jnp.asarray(kernel)},
        batch_stats={},
        opt_state=optax.sgd(0.1).init({}),
    )


def save_for_ever(directory: Path) -> None:
    """Save without end from the newest checkpoint on; print when each save begins and has ended."""
    with Checkpoints(directory, CONFIG) as checkpoints:
        step = checkpoints.latest_step or 0
        while True:
            step += 1
            state = make_state(step)
            print("saving", step, flush=True)
            checkpoints.save(state, badness=1 / step, metadata={"step": step})
            # This save has waited for the end of the save before it.
            print("saved", step - 1, flush=True)


def kill_once(directory: Path, rng: random.Random) -> dict[str, int]:
    """Start a child, kill it, and check what is left.

    Returns:
        The last step whose save had ended, the step that was restored, and the number of unfinished
        directories that the killed process had left.
    """
    saved = 0
    with subprocess.Popen(
        [sys.executable, __file__, "--child", str(directory)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        saves = rng.randint(2, 4)
        for line in child.stdout:
            word, step = line.split()
            saves -= word == "saving"
            saved = max(saved, int(step)) if word == "saved" else saved
            if saves == 0:
                break
        # A save takes about half a second, and the next state is prepared in the meantime.
        time.sleep(rng.uniform(0, 0.6))
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            word, step = line.split()
            saved = max(saved, int(step)) if word == "saved" else saved
    assert child.returncode == -signal.SIGKILL
    unfinished = [path for path in directory.iterdir() if not path.name.isdigit()]

    with Checkpoints(directory, CONFIG) as checkpoints:
        if checkpoints.latest_step is None:
            assert saved == 0, f"step {saved} was saved and is gone"
            restored = 0
        else:
            sharding = replicated(make_mesh(jax.devices()[:1]))
            abstract = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                make_state(1),
            )
            state, metadata = checkpoints.restore(abstract)
            restored = int(state.step)
            assert metadata == {"step": restored}
            assert describe_arrays(state) == describe_arrays(make_state(restored))
    assert restored >= saved, f"step {saved} was saved, {restored} came back"
    assert all(path.name.isdigit() for path in directory.iterdir()), "left behind"
    return {"saved": saved, "restored": restored, "unfinished": len(unfinished)}


def kills(*, seed: int) -> Iterator[dict[str, int]]:
    """Kill one child after another. Each child continues in the same directory."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        while True:
            yield kill_once(Path(directory), rng)


def main() -> None:
    """Parse the command line and run the test."""
    if sys.argv[1:2] == ["--child"]:
        save_for_ever(Path(sys.argv[2]))
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    started = time.monotonic()
    outcomes = list(itertools.islice(kills(seed=time.time_ns()), times))
    for outcome in outcomes:
        print(json.dumps(outcome))
    amid = sum(outcome["unfinished"] > 0 for outcome in outcomes)
    print(
        f"{times} of {times} kills survived, {amid} of them amid the writing of files, in "
        f"{time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
