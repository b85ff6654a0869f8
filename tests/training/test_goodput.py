"""Each moment of a run is counted for exactly one activity."""

import itertools

import pytest

from resnet_jax.training.process.goodput import Goodput, in_words


def test_every_second_counts_once_and_for_the_innermost_activity() -> None:
    ticks = itertools.count(10.0)  # One second from one reading to the next.
    goodput = Goodput(started=5.0, clock=lambda: next(ticks))
    with goodput.spent_on("step"):  # 10, five seconds after the start.
        with goodput.spent_on("data"):  # 11 to 12.
            pass
        with pytest.raises(OSError, match="full"), goodput.spent_on("checkpoint"):  # 13 to 14.
            raise OSError("full")
    # The activity ended at 15, and the shares are read at 16.
    expected = {"step": 3.0, "data": 1.0, "checkpoint": 1.0, "other": 6.0}
    assert goodput.seconds == {"compile": 0.0, "evaluation": 0.0, **expected}
    shares = goodput.shares  # Asked at 17.
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["other"] == pytest.approx(7 / 12)
    assert in_words(shares).startswith("training steps 25.0%, compilation 0.0%, waiting for data ")
    assert in_words(shares).endswith(", idle and start 58.3%")
