"""Which parameters decay."""

from typing import Literal

DecayOn = Literal["kernels", "all"]
"""Kinds of parameters that weight decay acts on."""
