"""Configuration of what happens to training images on the device."""

import dataclasses
import math
from typing import Literal

from resnet_jax.config.validation import require, require_not_negative, require_positive


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What the device does to training images, in this order; see docs/augmentation.md."""

    crop_padding: int = 0
    """Crop the image's own size at random from the image with this many pixels added on every side;
    0 turns it off, 4 is usual for CIFAR."""
    crop_padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What is added: black, or the image mirrored at its border."""
    flip: float = 0.5
    """Probability that left and right are swapped."""
    policy: Literal[
        "none",
        "randaugment",
        "timm_randaugment",
        "timm_randaugment_increasing",
        "trivial",
        "autoaugment",
        "autoaugment_cifar10",
        "three_augment",
    ] = "none"
    """Random operations on shapes and colours; timm's "rand-m9-mstd0.5-inc1" is
    "timm_randaugment_increasing", the other names are those of torchvision and DeiT III."""
    num_ops: int = 2
    """Operations an image (all RandAugments)."""
    magnitude: float = 9.0
    """Strength: a bin, from 0 to magnitude_bins - 1 (randaugment), or from 0 to 10 (timm's)."""
    magnitude_bins: int = 31
    """Number of strengths (randaugment, trivial)."""
    magnitude_std: float = 0.5
    """Standard deviation of the strength from image to image (timm's RandAugments)."""
    op_probability: float = 0.5
    """Probability that a drawn operation is done (timm's RandAugments)."""
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    """Of the policy's shears, translations and rotations."""
    fill: tuple[int, ...] = (0,)
    """Grey level outside the image in these, 0 to 255; one value or one per channel."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Brightness, contrast and saturation change by factors from 1 minus to 1 plus these; the hue
    turns by up to this share of the circle either way, at most 0.5."""
    grayscale: float = 0.0
    """Probability that an image loses its colours."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted from levels between 0 and 1; one value or one per channel.  ImageNet's."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """What they are then divided by; one value or one per channel.  ImageNet's."""
    erasing: float = 0.0
    """Probability that rectangles are erased."""
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    """What they show: the mean, one random colour, or noise."""
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the image that they cover together."""
    erasing_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Smallest and largest height over width."""
    erasing_max_count: int = 1
    """Their number is uniform from 1 to this."""
    mixup_alpha: float = 0.0
    """Mixup's share comes from Beta(alpha, alpha); 0 turns it off."""
    cutmix_alpha: float = 0.0
    """The area that CutMix keeps comes from Beta(alpha, alpha); 0 turns it off."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed."""
    mix_switch_probability: float = 0.5
    """Probability that it is CutMix, where both are on."""

    def __post_init__(self) -> None:
        require_not_negative(
            self, "crop_padding", "magnitude", "magnitude_std", "mixup_alpha", "cutmix_alpha"
        )
        require_positive(self, "num_ops", "erasing_max_count")
        for name in (
            "flip",
            "op_probability",
            "grayscale",
            "erasing",
            "mix_probability",
            "mix_switch_probability",
        ):
            probability = getattr(self, name)
            require(
                0 <= probability <= 1,
                f"{name} is a probability, from 0 to 1, but it is {probability}",
            )
        require(
            self.magnitude_bins >= 2,
            f"magnitude_bins must be at least 2, but it is {self.magnitude_bins}",
        )
        highest = {
            "randaugment": self.magnitude_bins - 1,
            "timm_randaugment": 10,
            "timm_randaugment_increasing": 10,
        }.get(self.policy, math.inf)
        require(
            self.magnitude <= highest,
            f"magnitude must be at most {highest} for {self.policy}, but it is {self.magnitude}",
        )
        require(
            min(self.color_jitter) >= 0 and self.color_jitter[3] <= 0.5,
            f"color_jitter must not be negative, and its last value, the hue, at most 0.5; "
            f"it is {self.color_jitter}",
        )
        require(
            all(0 <= level <= 255 for level in self.fill) and bool(self.fill),
            f"fill must be one level from 0 to 255 or one per channel, but it is {self.fill}",
        )
        require(
            bool(self.mean) and bool(self.std) and min(self.std, default=0) > 0,
            f"mean and std must have one value or one per channel, and std must be above 0; "
            f"they are {self.mean} and {self.std}",
        )
        for name, lowest, highest in (
            ("erasing_area", 0, 1),
            ("erasing_aspect", 0, math.inf),
        ):
            smaller, larger = getattr(self, name)
            require(
                lowest < smaller <= larger <= highest,
                f"{name} must be a smallest and a largest value above {lowest} and up to "
                f"{highest}, but it is {(smaller, larger)}",
            )
