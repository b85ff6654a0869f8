"""Configuration of the augmentation of training images on the device."""

import dataclasses
import math
from typing import Literal

from resnet_jax.config.validation import require, require_not_negative, require_positive


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images on the device, in the order of these fields."""

    crop_padding: int = 0
    """Number of pixels added to each side of an image before a random window of the original size
    is cut out. 0 turns the crop off; 4 is usual for CIFAR."""
    crop_padding_mode: Literal["zeros", "reflect"] = "zeros"
    """Content of the added pixels: black, or the image mirrored at its edge."""
    flip: float = 0.5
    """Probability that an image is mirrored horizontally. Set it to 0 if left and right matter, as
    for digits and text."""
    flip_mode: Literal["random", "alternating"] = "random"
    """When an image is mirrored. "random" decides anew each time that an image is drawn.
    "alternating" decides once for each image, and then mirrors every image in every other epoch, so
    that two epochs in a row show both versions (Jordan 2024). It suits runs of a few epochs."""
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
    """Policy that draws random changes of shape and color for each image. "none" turns it off.
    "timm_randaugment_increasing" is timm's "rand-m9-mstd0.5-inc1"; "three_augment" is from DeiT
    III; the others are torchvision's."""
    num_ops: int = 2
    """Number of operations for each image. Used by the RandAugment policies only."""
    magnitude: float = 9.0
    """Strength of the operations: from 0 to magnitude_bins - 1 for "randaugment", from 0 to 10 for
    the timm policies. The other policies ignore it."""
    magnitude_bins: int = 31
    """Number of strengths from the weakest to the strongest. Used by "randaugment" and
    "trivial"."""
    magnitude_std: float = 0.5
    """Standard deviation of the strength between images, in the unit of magnitude. Used by the timm
    policies."""
    op_probability: float = 0.5
    """Probability that a drawn operation is applied. Used by the timm policies."""
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    """Interpolation of the policy's shears, translations and rotations. "nearest" is faster."""
    fill: tuple[int, ...] = (0,)
    """Level from 0 to 255 of the pixels that shears, translations and rotations leave empty: one
    value, or one for each channel. The default is black."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Random changes of brightness, contrast, saturation and hue. A value v for the first three
    draws a factor from 1 - v to 1 + v; the value for the hue, at most 0.5, is the largest rotation
    of the color circle, in turns. All 0 turns it off."""
    grayscale: float = 0.0
    """Probability that an image is converted to grayscale."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Mean that is subtracted from the levels, on a scale from 0 to 1: one value, or one for each
    channel. The default is ImageNet's. Use the value that pretrained weights were trained with."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Standard deviation that the levels are divided by, on a scale from 0 to 1: one value, or one
    for each channel. The default is ImageNet's."""
    erasing: float = 0.0
    """Probability that rectangles of an image are erased."""
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    """Content of an erased rectangle: the mean, one random color, or a random color for each
    pixel."""
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest erased area, all rectangles together, as a share of the image."""
    erasing_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Smallest and largest height divided by width of a rectangle."""
    erasing_max_count: int = 1
    """Largest number of rectangles in an image. The number is uniform from 1 to this."""
    erasing_value: tuple[float, ...] = (0.0,)
    """Content of an erased rectangle for erasing_mode "const", after normalization: one value, or
    one for each channel. The default, 0, is the mean."""
    erasing_aspect_scale: Literal["logarithmic", "linear"] = "logarithmic"
    """What is drawn uniformly between the limits of erasing_aspect. "logarithmic" draws the
    logarithm of the ratio, as torchvision and timm do. "linear" draws the ratio itself, as the code
    of the paper does (Zhong et al. 2017), so that tall rectangles are more frequent than wide
    ones."""
    mixup_alpha: float = 0.0
    """Parameter of mixup. The share of the first image is drawn from Beta(alpha, alpha), so larger
    values mix more evenly. 0 turns mixup off; 0.1 to 0.8 are usual."""
    cutmix_alpha: float = 0.0
    """Parameter of CutMix. The area that stays is drawn from Beta(alpha, alpha). 0 turns CutMix
    off; 1 is usual."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed, if mixup or CutMix is on."""
    mix_switch_probability: float = 0.5
    """Probability that a mixed batch uses CutMix, if both mixup and CutMix are on."""
    mix_partner: Literal["flip", "roll", "random"] = "flip"
    """Image that each image is mixed with. "flip" takes the images of the batch in reverse order
    (timm), "roll" takes the image before it in the batch (torchvision), and "random" takes the
    images in a random order (NVIDIA and the code of the papers)."""
    mix_draw: Literal["batch", "image"] = "batch"
    """What one random choice of mixup or CutMix, of the share and of the box applies to: the whole
    batch (torchvision, NVIDIA, and timm's default), or one image (timm's mode "elem")."""
    cutmix_even_sides: bool = False
    """Round the sides of CutMix's box down to even numbers of pixels, as torchvision does. False
    rounds them down to whole pixels, as timm does."""
    mix_until_epoch: float | None = None
    """Number of epochs after which mixup and CutMix are turned off, as with timm's
    --mixup-off-epoch. None keeps them on for the whole run."""

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, by mixup or CutMix."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    @property
    def mean_color(self) -> tuple[int, ...]:
        """Red, green and blue of the mean, as levels from 0 to 255."""
        mean = self.mean if len(self.mean) == 3 else self.mean * 3
        return tuple(round(255 * level) for level in mean)

    def __post_init__(self) -> None:
        require_not_negative(
            self, "crop_padding", "magnitude", "magnitude_std", "mixup_alpha", "cutmix_alpha"
        )
        require_positive(self, "num_ops", "erasing_max_count")
        if self.mix_until_epoch is not None:
            require_positive(self, "mix_until_epoch")
            require(
                self.mixes,
                "mix_until_epoch needs mixup_alpha or cutmix_alpha above 0; set one of them, or "
                "mix_until_epoch to None",
            )
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
                f"{name} is a probability from 0 to 1, but it is {probability}",
            )
        require(
            self.flip_mode == "random" or self.flip > 0,
            'flip_mode "alternating" mirrors every image in half of the epochs, but flip is 0; set '
            'flip above 0, or flip_mode to "random"',
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
            f"color_jitter must not be negative, and its last value, the hue, must be at most 0.5; "
            f"but it is {self.color_jitter}",
        )
        require(
            all(0 <= level <= 255 for level in self.fill) and bool(self.fill),
            f"fill must be one level from 0 to 255 or one for each channel, but it is {self.fill}",
        )
        require(
            bool(self.erasing_value)
            and (self.erasing_mode == "const" or not any(self.erasing_value)),
            "erasing_value must be one value or one for each channel, and needs erasing_mode "
            f'"const"; but it is {self.erasing_value}, and the mode is "{self.erasing_mode}"',
        )
        require(
            bool(self.mean) and bool(self.std) and min(self.std, default=0) > 0,
            f"mean and std must have one value or one for each channel, and std must be above 0; "
            f"but they are {self.mean} and {self.std}",
        )
        for name, lowest, highest in (
            ("erasing_area", 0, 1),
            ("erasing_aspect", 0, math.inf),
        ):
            smaller, larger = getattr(self, name)
            require(
                lowest < smaller <= larger <= highest,
                f"{name} must be a smallest and a largest value, above {lowest} and up to "
                f"{highest}, but it is {(smaller, larger)}",
            )
