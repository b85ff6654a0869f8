"""Every schedule equals the reference implementations at every step or epoch."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import (
    ConfigError,
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    OneCycleConfig,
    PolynomialConfig,
    ScheduleConfig,
    StepsConfig,
    TriangularConfig,
)

# `regenerate_schedules.py` wrote them.
REFERENCES = json.loads((Path(__file__).parent / "schedules.json").read_text())


class Case(NamedTuple):
    """How a reference is written here.

    Attributes:
        schedule: The schedule.
        peak: Its peak.
        epochs: Number of epochs of the reference.
        steps_per_epoch: Number of steps of each. Values of a schedule by epoch are repeated.
    """

    schedule: ScheduleConfig
    peak: float
    epochs: int
    steps_per_epoch: int


TIMM = {"warmup_start": 1e-4 / 8e-3, "end": 1e-6 / 8e-3}
TIMM_STEP = {"warmup_start": 1e-6 / 0.5, "decay_factor": 0.97, "granularity": "epoch"}
EVERY_2_4 = tuple(2.4 * i for i in range(2, 9))
CASES = {
    "torch StepLR": Case(
        StepsConfig(warmup_epochs=0, decay_epochs=(4, 8), granularity="epoch"), 0.1, 12, 3
    ),
    "torch MultiStepLR": Case(
        StepsConfig(warmup_epochs=0, decay_epochs=(6, 12, 16), decay_factor=0.2), 0.1, 20, 1
    ),
    "torchvision V2": Case(CosineConfig(warmup_start=0.01, granularity="epoch"), 0.5, 20, 3),
    "torch OneCycleLR": Case(OneCycleConfig(), 0.3, 8, 5),
    "torch OneCycleLR, set": Case(
        OneCycleConfig(peak_at=0.25, warmup_start=1 / 10, end=1 / 1000, granularity="epoch"),
        *(0.3, 37, 2),
    ),
    "timm cosine": Case(
        CosineConfig(warmup_prefix=False, granularity="epoch", **TIMM), 8e-3, 20, 3
    ),
    "timm cosine, prefix": Case(CosineConfig(granularity="epoch", **TIMM), 8e-3, 20, 3),
    "timm cosine on updates": Case(
        CosineConfig(warmup_epochs=2, warmup_prefix=False, **TIMM), 8e-3, 8, 5
    ),
    # timm's first decay, after 2.4 epochs, takes effect when the warm-up ends.
    "timm step": Case(
        StepsConfig(3, decay_epochs=(3.0, *EVERY_2_4), **TIMM_STEP),
        *(0.5, 20, 3),
    ),
    "timm step, prefix": Case(
        StepsConfig(3, decay_epochs=tuple(3 + 2.4 * i for i in range(1, 8)), **TIMM_STEP),
        *(0.5, 20, 3),
    ),
    "Goyal et al. 2017": Case(
        StepsConfig(warmup_start=0.1 / 3.2, decay_epochs=(30, 60, 80)), 3.2, 90, 2
    ),
    "flax example": Case(CosineConfig(), 0.4, 10, 5),
    "big_vision cosine": Case(CosineConfig(warmup_steps=7), 1.6, 10, 5),
    "big_vision linear": Case(LinearConfig(warmup_steps=7, end=1e-5 / 1.6), 1.6, 10, 5),
    "MLPerf": Case(PolynomialConfig(warmup_epochs=2, end=1e-4 / 10.0, extra_steps=1), 10.0, 10, 4),
    # Its eighth epoch has the peak already, and its ninth one too.
    "NVIDIA": Case(
        CosineConfig(warmup_epochs=7, warmup_start=1 / 8, hold_epochs=1, granularity="epoch"),
        *(0.512, 20, 3),
    ),
    "FFCV": Case(LinearConfig(warmup_epochs=2, warmup_start=1e-4), 1.7, 10, 5),
    "airbench": Case(TriangularConfig(), 0.01, 7, 7),
    "TensorFlow Model Garden": Case(
        CosineConfig(warmup_epochs=1, warmup_prefix=False, warmup_target="decay"), 1.6, 10, 5
    ),
    "He et al. 2016": Case(
        LinearConfig(
            warmup_epochs=0,
            end=0.01,
            points=((0, 0.1), (4, 0.1), (4, 1), (20, 1), (20, 0.1), (30, 0.1), (30, 0.01)),
        ),
        *(0.1, 40, 1),
    ),
}


def rates(case: Case, count: int | None = None) -> np.ndarray:
    """Return the learning rate of each step of a run."""
    total = case.epochs * case.steps_per_epoch
    schedule = case.schedule.create(
        case.peak, epochs=case.epochs, steps=lambda epochs: round(epochs * case.steps_per_epoch)
    )
    # Within a jitted function, as in the training step.
    steps = jnp.arange(total if count is None else count, dtype=jnp.int32)
    return np.asarray(jax.jit(lambda steps: jnp.broadcast_to(schedule(steps), steps.shape))(steps))


def expected(name: str, case: Case) -> np.ndarray:
    total = case.epochs * case.steps_per_epoch
    values = np.asarray(REFERENCES[name])
    assert total % len(values) == 0
    return np.repeat(values, total // len(values))


def test_every_reference_is_compared() -> None:
    assert list(CASES) == list(REFERENCES)


@pytest.mark.parametrize("name", CASES)
def test_in_float64_a_schedule_is_that_of_the_reference(name: str) -> None:
    with jax.enable_x64(True):
        found = rates(CASES[name])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected(name, CASES[name]), rtol=1e-9, atol=0)


# The angle of the cosine, at most pi, is rounded three times: pi itself, the product, the quotient.
# That moves half the cosine by at most 1.5 pi = 4.7 units of 2**-24 of the peak. The cosine, two
# products and the sum round once each, by at most a unit. The other curves round less.
FLOAT32_UNITS = 9


@pytest.mark.parametrize("name", CASES)
def test_in_float32_it_differs_by_rounding(name: str) -> None:
    case, found = CASES[name], rates(CASES[name])
    assert found.dtype == np.float32
    reference = expected(name, case)
    bound = FLOAT32_UNITS * 2.0**-24 * reference.max()
    np.testing.assert_allclose(found, reference, rtol=0, atol=bound)


def test_the_ends_are_exact() -> None:
    def ends(schedule: ScheduleConfig, *times: int) -> list[float]:
        with jax.enable_x64(True):
            found = rates(Case(schedule, 0.5, 10, 8), 81)
        return [float(found[time]) for time in times]

    kinds = (CosineConfig, LinearConfig, PolynomialConfig)
    for kind in kinds:
        schedule = kind(warmup_epochs=2, warmup_start=0.25, end=0.125, hold_epochs=3)
        assert ends(schedule, 0, 16, 40, 80) == [0.125, 0.5, 0.5, 0.0625]
        assert ends(kind(), 0, 40, 80) == [0.0, 0.5, 0.0]
    assert ends(OneCycleConfig(warmup_start=0.25, end=0.125), 0, 79) == [0.125, 0.0625]
    assert ends(TriangularConfig(0.25, warmup_start=0.25, end=0.125), 0, 20, 80) == [
        *(0.125, 0.5, 0.0625)
    ]
    assert ends(ConstantConfig(warmup_epochs=1, warmup_start=0.5), 0, 4, 8, 80) == [
        *(0.25, 0.375, 0.5, 0.5)
    ]


def test_the_hold_ends_after_its_epochs_also_where_the_steps_of_an_epoch_change() -> None:
    # The first two epochs have 10 steps, and all others 4, as with resizing.batch_sizes.
    schedule = CosineConfig(warmup_epochs=2, hold_epochs=1).create(
        1.0, epochs=5, steps=lambda epochs: int(10 * min(epochs, 2) + 4 * max(epochs - 2, 0))
    )
    np.testing.assert_allclose(schedule(np.array([20, 24])), [1, 1])
    assert float(schedule(25)) < 1


def test_by_epoch_the_rate_changes_where_an_epoch_begins() -> None:
    # 2.5 steps an epoch: epochs begin after 0, 3 (2.5 rounded), 5, 8 steps.
    schedule = LinearConfig(warmup_epochs=0, granularity="epoch").create(
        1.0, epochs=4, steps=lambda epochs: int(2.5 * epochs + 0.5)
    )
    found = np.asarray(schedule(np.arange(10)))
    np.testing.assert_allclose(found, [1, 1, 1, 0.75, 0.75, 0.5, 0.5, 0.5, 0.25, 0.25])


BY_EPOCH: dict[str, Any] = {"warmup_start": 0.25, "granularity": "epoch"}


@pytest.mark.parametrize(
    ("schedule", "epochs", "values"),
    [
        # A tenth of the run, and no epoch if that is less than one.
        (CosineConfig(warmup_steps=1000), 10, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (CosineConfig(warmup_epochs=10, **BY_EPOCH), 2, [1.0]),
        (CosineConfig(warmup_epochs=10, **BY_EPOCH), 10, [0.25, 0.25, 0.25, 0.25, 1.0]),
        (CosineConfig(warmup_epochs=7, hold_epochs=1, **BY_EPOCH), 1, [1.0, 1.0, 1.0]),
        (CosineConfig(warmup_epochs=1, hold_epochs=8), 3, [0.0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_in_a_short_run_the_rate_still_reaches_its_peak(
    schedule: CosineConfig, epochs: int, values: list[float]
) -> None:
    found = rates(Case(schedule, 1.0, epochs, 4))
    np.testing.assert_allclose(found[: len(values)], values, atol=1e-6)
    assert (found[len(values) :] <= 1).all()


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CosineConfig, {"warmup_start": 1.5}, "warmup_start must be from 0 to 1, but it is 1.5"),
        (CosineConfig, {"end": -0.1}, "end must be from 0 to 1, but it is -0.1"),
        (CosineConfig, {"warmup_steps": 0}, "warmup_steps must be above 0"),
        (
            CosineConfig,
            {"warmup_steps": 9, "granularity": "epoch"},
            'warmup_steps needs granularity "step"',
        ),
        (
            CosineConfig,
            {"hold_epochs": 1.0, "warmup_prefix": False},
            r"hold_epochs \(1\) needs warmup_prefix",
        ),
        (CosineConfig, {"warmup_target": "decay"}, "needs warmup_prefix to be False"),
        (PolynomialConfig, {"power": 0.0}, "power must be above 0"),
        (
            PolynomialConfig,
            {"extra_steps": 1, "granularity": "epoch", "warmup_epochs": 0},
            'extra_steps needs granularity "step"',
        ),
        (
            LinearConfig,
            {"points": ((4.0, 1.0),)},
            "come before epoch 5, where the decay begins",
        ),
        (LinearConfig, {"points": ((9.0, 1.0), (8.0, 0.5))}, "must not fall"),
        (LinearConfig, {"points": ((9.0, -1.0),)}, "must be finite and not below 0"),
        (OneCycleConfig, {"peak_at": 1.1}, "peak_at must be from 0 to 1"),
        (
            StepsConfig,
            {"decay_epochs": (4.0,)},
            r"the warm-up \(5 epochs\), but they are \(4.0,\)",
        ),
    ],
)
def test_impossible_schedules_are_refused(kind: type, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        kind(**values)
    assert "\n" not in str(error.value)


def test_a_point_after_the_end_of_the_run_is_refused() -> None:
    schedule = LinearConfig(points=((20.0, 0.5),))
    schedule.check_epochs(21.0)
    with pytest.raises(ConfigError, match="must come before the end of the run"):
        schedule.check_epochs(20.0)
