"""Write resnet_jax/commands/models.csv: `python -m tests.commands.regenerate_models`.

It takes minutes, and no test runs it as a whole.
"""

import csv
from pathlib import Path

from resnet_jax import count_macs, count_parameters, create_model, list_models
from resnet_jax.commands import models
from resnet_jax.commands.models import Row


def measure(name: str) -> Row:
    """Return the costs of a network, counted from its program."""
    network = create_model(name)
    # The networks for images of about 32 pixels do not reduce the resolution in the stem.
    size = 32 if name.startswith(("cifar_", "wrn_")) else 224
    return Row(
        name,
        count_parameters(network, (size, size, 3)),
        count_macs(network, (size, size, 3)),
        size,
    )


def main() -> None:
    path = Path(models.__file__).with_name("models.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "parameters", "macs", "input_size"])
        for name in list_models():
            row = measure(name)
            writer.writerow([row.name, row.parameters, row.macs, row.input_size])
            file.flush()


if __name__ == "__main__":
    main()
