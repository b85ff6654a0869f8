"""Write ``averaging.json``: averages that PyTorch and timm compute in float64.

python tests/training/regenerate_averaging.py    (needs torch and timm)

``ModelEmaV3`` is timm's.  torchvision's ``ExponentialMovingAverage`` (utils.py in its
references/classification) is PyTorch's ``AveragedModel`` with a constant decay and averaged
buffers, and its training loop (train.py) decides when it is updated.  Stochastic weight averaging
is ``AveragedModel`` with its default rule, which copies buffers.
"""

import json
from pathlib import Path

import timm.utils
import torch
from torch.optim.swa_utils import AveragedModel

STEPS, STEPS_PER_EPOCH = 24, 6


class Network(torch.nn.Module):
    """A parameter and a buffer, which follow given sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.follow(0)

    def follow(self, step: int) -> None:
        """Take the values after a number of steps, those of the test."""
        with torch.no_grad():
            self.weight.fill_(float(torch.sin(torch.tensor(1.7 * step + 0.3, dtype=torch.float64))))
            self.mean.fill_(float(torch.cos(torch.tensor(0.9 * step, dtype=torch.float64))))


def values(network: torch.nn.Module) -> list[float]:
    return [float(network.weight.detach()), float(network.mean)]


def timm_rule(**options: float) -> list[list[float]]:
    network = Network()
    averages = timm.utils.ModelEmaV3(network, foreach=False, **options)
    history = []
    for step in range(1, STEPS + 1):
        network.follow(step)
        averages.update(network, step=step)
        history.append(values(averages.module))
    return history


def torchvision_rule(
    decay: float, every: int, warmup_epochs: int, batch_size: int
) -> list[list[float]]:
    network, epochs = Network(), STEPS // STEPS_PER_EPOCH
    alpha = min(1.0, (1.0 - decay) * batch_size * every / epochs)
    averages = AveragedModel(
        network,
        avg_fn=lambda average, new, _: (1 - alpha) * average + alpha * new,
        use_buffers=True,
    )
    history = []
    for epoch in range(epochs):
        for i in range(STEPS_PER_EPOCH):
            network.follow(epoch * STEPS_PER_EPOCH + i + 1)
            if i % every == 0:
                averages.update_parameters(network)
                if epoch < warmup_epochs:
                    averages.n_averaged.fill_(0)
            history.append(values(averages.module))
    return history


def stochastic_weight_averaging(start_epoch: int) -> list[list[float]]:
    network = Network()
    averages = AveragedModel(network)
    history = []
    for step in range(1, STEPS + 1):
        network.follow(step)
        if step % STEPS_PER_EPOCH == 0 and step // STEPS_PER_EPOCH >= start_epoch:
            averages.update_parameters(network)
        history.append(values(averages.module))
    return history


if __name__ == "__main__":
    reference = {
        "timm": timm_rule(decay=0.9),
        "timm_late": timm_rule(
            decay=0.7, use_warmup=True, update_after_step=STEPS_PER_EPOCH, warmup_gamma=2.0
        ),
        "timm_warmup": timm_rule(decay=0.7, use_warmup=True),
        "torchvision": torchvision_rule(0.999, every=4, warmup_epochs=1, batch_size=128),
        "torchvision_without_warmup": torchvision_rule(0.9, every=5, warmup_epochs=0, batch_size=2),
        "equal": stochastic_weight_averaging(2),
    }
    path = Path(__file__).with_name("averaging.json")
    lines = (f"{json.dumps(name)}: {json.dumps(history)}" for name, history in reference.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
