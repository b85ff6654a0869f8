"""Send random requests to a server with a small network for some minutes.

    python tests/nightly/fuzz_server.py [MINUTES]

Requests are image files with damaged bytes, forms with wrong syntax, tensors with wrong fields, and
random headers, queries and methods.  Every answer must be one of the intended ones: 200, or a 4xx
with a reason in JSON.  At the end the numbers of answers are printed, and an image must still be
classified.
"""

import collections
import logging
import sys
import time
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings

from resnet_jax import Classifier, Preprocessing, create_model
from resnet_jax.serving import Limits, Model
from tests.serving.requests import check, requests
from tests.serving.stub import image_file, serving
from tests.variables import random_variables

_PER_ROUND = 2000


def small_model() -> Model:
    """Return a network with random variables."""
    network = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(network, np.zeros((1, 32, 32, 3), np.float32))
    preprocessing = Preprocessing(32, 0.875, "pil_bicubic", (0.5,), (0.25,), 3)
    return Model.from_classifier(
        Classifier(network, variables, preprocessing, ["cat", "dog", "fox"]), "tiny"
    )


def main() -> None:
    """Fuzz until the time is over."""
    # It warns of every wrong form.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    model = small_model()
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    end = time.monotonic() + 60 * minutes
    with serving(model, Limits(body_bytes=200_000, pixels=200_000, images=3)) as client:

        @settings(
            max_examples=_PER_ROUND,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(request=requests(model.name, model.preprocessing.image_shape))
        def fuzz(request: tuple[str, str, dict[str, Any]]) -> None:
            if time.monotonic() < end:
                counts[request[1], check(client, request)] += 1

        while time.monotonic() < end:
            fuzz()
        answer = client.post("/predict", content=image_file())
        assert answer.status_code == 200, answer.text
    total = sum(counts.values())
    print(f"{total:,} requests in {minutes:g} minutes, none with an unintended answer")
    statuses = sorted({status for _, status in counts})
    print("| path |", " | ".join(map(str, statuses)), "|")
    print("|---|" + "---|" * len(statuses))
    for path in sorted({path for path, _ in counts}):
        row = [f"{counts[path, status]:,}" for status in statuses]
        print(f"| `{path}` |", " | ".join(row), "|")


if __name__ == "__main__":
    main()
