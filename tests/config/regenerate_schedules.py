"""Rewrite the learning rates of the reference implementations, `schedules.json`.

    python tests/config/regenerate_schedules.py

It needs PyTorch and timm, in an environment of their own; `tests/golden/regenerate.py` says how to
make one.  The schedulers of PyTorch and timm run as they are.  The others are parts of training
scripts, transcribed with the names of the originals.  All compute in float64.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent / "schedules.json"


def of_torch(create: Callable, lr: float, count: int) -> list[float]:
    """Return the learning rates of a scheduler of PyTorch, which is stepped after each index."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr, momentum=0.9)
    scheduler = create(optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def of_timm(create: Callable, lr: float, count: int) -> list[float]:
    """Return the learning rates of a scheduler of timm, as its train.py sets them."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler = create(optimizer)
    rates = []
    for t in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        if scheduler.t_in_epochs:
            scheduler.step(t + 1)
        else:
            scheduler.step_update(t + 1)
    return rates


def torch_and_timm() -> dict[str, list[float]]:
    """Return what the schedulers of the two libraries compute."""
    from timm.scheduler import CosineLRScheduler, StepLRScheduler
    from torch.optim.lr_scheduler import (
        CosineAnnealingLR,
        LinearLR,
        MultiStepLR,
        OneCycleLR,
        SequentialLR,
        StepLR,
    )

    def torchvision_v2(optimizer):  # noqa: ANN001, ANN202
        warmup = LinearLR(optimizer, start_factor=0.01, total_iters=5)
        main = CosineAnnealingLR(optimizer, T_max=15, eta_min=0.0)
        return SequentialLR(optimizer, [warmup, main], milestones=[5])

    a3 = {"t_initial": 20, "lr_min": 1e-6, "warmup_t": 5, "warmup_lr_init": 1e-4}
    steps = {"decay_t": 2.4, "decay_rate": 0.97, "warmup_t": 3, "warmup_lr_init": 1e-6}
    one_cycle = {"pct_start": 0.25, "div_factor": 10.0, "final_div_factor": 100.0}
    return {
        "torch StepLR": of_torch(lambda o: StepLR(o, 4, 0.1), 0.1, 12),
        "torch MultiStepLR": of_torch(lambda o: MultiStepLR(o, [6, 12, 16], 0.2), 0.1, 20),
        "torchvision V2": of_torch(torchvision_v2, 0.5, 20),
        "torch OneCycleLR": of_torch(lambda o: OneCycleLR(o, 0.3, total_steps=40), 0.3, 40),
        "torch OneCycleLR, set": of_torch(
            lambda o: OneCycleLR(o, 0.3, total_steps=37, **one_cycle), 0.3, 37
        ),
        "timm cosine": of_timm(lambda o: CosineLRScheduler(o, **a3), 8e-3, 20),
        "timm cosine, prefix": of_timm(
            lambda o: CosineLRScheduler(o, **a3 | {"t_initial": 15}, warmup_prefix=True), 8e-3, 20
        ),
        "timm cosine on updates": of_timm(
            lambda o: CosineLRScheduler(
                o, 40, lr_min=1e-6, warmup_t=10, warmup_lr_init=1e-4, t_in_epochs=False
            ),
            8e-3,
            40,
        ),
        "timm step": of_timm(lambda o: StepLRScheduler(o, **steps, warmup_prefix=False), 0.5, 20),
        "timm step, prefix": of_timm(lambda o: StepLRScheduler(o, **steps), 0.5, 20),
    }


def goyal(epochs: int, steps_per_epoch: int) -> list[float]:
    """Goyal et al. 2017, arXiv:1706.02677, section 2.2: from 0.1 to 3.2 in five epochs."""
    rates = []
    for t in range(epochs * steps_per_epoch):
        warmup = 5 * steps_per_epoch
        decays = sum(t >= epoch * steps_per_epoch for epoch in (30, 60, 80))
        rates.append(0.1 + (3.2 - 0.1) * t / warmup if t < warmup else 3.2 * 0.1**decays)
    return rates


def flax_example(base_learning_rate: float, num_epochs: int, steps_per_epoch: int) -> list[float]:
    """`create_learning_rate_fn` of examples/imagenet/train.py in google/flax, five warm-up epochs.

    It joins `optax.linear_schedule` and `optax.cosine_decay_schedule`.
    """
    warmup, total = 5 * steps_per_epoch, num_epochs * steps_per_epoch
    return [
        base_learning_rate * t / warmup
        if t < warmup
        else base_learning_rate * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (total - warmup)))
        for t in range(total)
    ]


def big_vision(base: float, total_steps: int, warmup_steps: int, decay_type: str) -> list[float]:
    """`create_learning_rate_schedule` of big_vision/utils.py in google-research/big_vision."""
    rates = []
    for step in range(total_steps):
        progress = (step - warmup_steps) / float(total_steps - warmup_steps)
        progress = min(max(progress, 0.0), 1.0)
        if decay_type == "linear":
            lr = 1e-5 + (base - 1e-5) * (1.0 - progress)
        else:
            lr = base * 0.5 * (1.0 + math.cos(math.pi * progress))
        rates.append(lr * min(1.0, step / warmup_steps))
    return rates


def mlperf(initial_learning_rate: float, warmup_steps: int, train_steps: int) -> list[float]:
    """`PolynomialDecayWithWarmup` of the retired resnet-tf2 benchmark in mlcommons/training."""
    power, end_learning_rate = 2.0, 0.0001
    decay_steps = train_steps - warmup_steps + 1
    rates = []
    for step in range(train_steps):
        # `tf.compat.v1.train.polynomial_decay` without `cycle`.
        global_step = min(step - warmup_steps, decay_steps)
        poly = (initial_learning_rate - end_learning_rate) * (
            1 - global_step / decay_steps
        ) ** power + end_learning_rate
        warmup = initial_learning_rate * step / warmup_steps
        rates.append(warmup if step <= warmup_steps else poly)
    return rates


def nvidia(base_lr: float, warmup_length: int, epochs: int) -> list[float]:
    """`lr_cosine_policy` of the ConvNets in NVIDIA/DeepLearningExamples, by epoch."""
    rates = []
    for epoch in range(epochs):
        if epoch < warmup_length:
            rates.append(base_lr * (epoch + 1) / warmup_length)
        else:
            e, es = epoch - warmup_length, epochs - warmup_length
            rates.append(0.5 * (1 + math.cos(math.pi * e / es)) * base_lr)
    return rates


def ffcv(lr: float, epochs: int, lr_peak_epoch: int, iters: int) -> list[float]:
    """`get_lr_cyclic` and `train_loop` of train_imagenet.py in libffcv/ffcv-imagenet."""

    def get_lr(epoch: int) -> float:
        return float(np.interp([epoch], [0, lr_peak_epoch, epochs], [1e-4 * lr, lr, 0])[0])

    rates = []
    for epoch in range(epochs):
        ends = [get_lr(epoch), get_lr(epoch + 1)]
        rates += np.interp(np.arange(iters), [0, iters], ends).tolist()
    return rates


def airbench(lr: float, steps: int) -> list[float]:
    """`triangle` of legacy/airbench94.py in KellerJordan/cifar10-airbench."""
    start, end, peak = 0.2, 0.07, 0.23
    xp, fp = np.array([0, int(peak * steps), steps]), np.array([start, 1, end])
    x = np.arange(1 + steps)
    m = (fp[1:] - fp[:-1]) / (xp[1:] - xp[:-1])
    b = fp[:-1] - (m * xp[:-1])
    indices = np.clip(np.sum(x[:, None] >= xp[None, :], 1) - 1, 0, len(m) - 1)
    return (lr * (m[indices] * x + b[indices])).tolist()[:steps]


def model_garden(initial_learning_rate: float, decay_steps: int, warmup_steps: int) -> list[float]:
    """`LinearWarmup` of official/modeling/optimization/lr_schedule.py in tensorflow/models.

    It is around Keras's `CosineDecay`, as in the configuration of ResNet-RS.
    """

    def after_warmup_lr_sched(step: int) -> float:
        return initial_learning_rate * 0.5 * (1 + math.cos(math.pi * step / decay_steps))

    final_warmup_lr = after_warmup_lr_sched(warmup_steps)
    warmup = [final_warmup_lr * step / warmup_steps for step in range(warmup_steps)]
    return warmup + [after_warmup_lr_sched(step) for step in range(warmup_steps, decay_steps)]


def pre_activation(count: int) -> list[float]:
    """He et al. 2016, arXiv:1603.05027, appendix: 0.01 at first, then 0.1, divided by 10 twice."""
    return [
        0.01 if t < 4 else 0.1 if t < 20 else 0.1 / 10 if t < 30 else 0.1 / 100
        for t in range(count)
    ]


def main() -> None:
    """Write the file."""
    # Imported in the functions, because pytest looks for doctests here where PyTorch is missing.
    rates = torch_and_timm() | {
        "Goyal et al. 2017": goyal(90, 2),
        "flax example": flax_example(0.4, 10, 5),
        "big_vision cosine": big_vision(1.6, 50, 7, "cosine"),
        "big_vision linear": big_vision(1.6, 50, 7, "linear"),
        "MLPerf": mlperf(10.0, 8, 40),
        "NVIDIA": nvidia(0.512, 8, 20),
        "FFCV": ffcv(1.7, 10, 2, 5),
        "airbench": airbench(0.01, 49),
        "TensorFlow Model Garden": model_garden(1.6, 50, 5),
        "He et al. 2016": pre_activation(40),
    }
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in rates.items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
