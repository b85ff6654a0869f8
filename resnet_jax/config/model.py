"""Configuration of the network."""

import dataclasses
import math
from typing import Literal

from resnet_jax.config.validation import require, require_positive, require_share


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and where its variables start; `resnet_jax.ResNet` explains the fields."""

    name: str
    """Name of the network, one of those that `resnet-jax models` lists."""
    weights: str | None = None
    """Weights to start from: a file, hf://OWNER/NAME, or the directory of another run. The head is
    initialized anew if the number of classes differs. None starts from random parameters."""
    weights_prefix: str | None = None
    """Which weights to start from if a checkpoint contains several networks, such as
    "teacher.backbone." or "model_ema.": the prefix of their names, or a part of it. None takes the
    only network that fits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which convolutions compute. Parameters, statistics and logits are always float32.
    float16 scales the loss dynamically, and skips the steps that overflow."""
    act: Literal["relu", "leaky_relu", "silu", "gelu", "mish", "elu"] | None = None
    """Activation. None keeps that of the network, which is ReLU for all published ones."""
    norm: Literal["batch", "group", "evo", "filter_response"] | None = None
    """Normalization: BatchNorm, GroupNorm with 32 groups, EvoNorm-S0 with 32 groups, or filter
    response normalization. The last two contain the activation and need a pre-activation network,
    such as resnetv2_50d. None keeps that of the network."""
    conv: Literal["blurred", "standardized"] | None = None
    """Kind of the convolutions. "blurred" blurs the input of every convolution that has a stride
    and 16 input channels or more (BlurPool, as in FFCV). "standardized" subtracts the mean of each
    output channel's weights and divides by their standard deviation (Qiao et al. 2019), which suits
    GroupNorm. None keeps the kind that the network has."""
    stem_pool: Literal["blurred_max"] | None = None
    """Pooling of the stem. "blurred_max" takes the maximum of the window at every pixel, and blurs
    the result before it subsamples (BlurPool, as in Composer). None keeps the pooling that the
    network has."""
    in_channels: int | None = None
    """Number of image channels that the network must accept. None takes that of the data."""
    output_stride: Literal[8, 16, 32] = 32
    """Pixels of the image per pixel of the last feature map. Below 32, the last stages use dilated
    convolutions instead of strides."""
    small_input: bool = False
    """Replace the stem by one 3x3 convolution without pooling, for images of about 32 pixels."""
    zero_init_residual: bool = True
    """Initialize the last scale of each block to zero, so that every block starts as the identity
    (Goyal et al. 2017, section 5.1)."""
    conv_init: Literal["fan_out", "fan_in"] = "fan_out"
    """Initial kernels of the convolutions. They are drawn from a normal distribution whose variance
    is 2 divided by the number of outputs ("fan_out", as in torchvision and timm) or of inputs
    ("fan_in", He et al. 2015, as in NVIDIA's ResNet) that a weight is connected to."""
    norm_scale_init: Literal["ones", "uniform"] = "ones"
    """Initial scales of normalization layers: all 1, or drawn uniformly between 0 and 1 (Composer).
    zero_init_residual still sets the last scale of each block to zero."""
    head_bias_init: float = 0.0
    """Initial value of all biases of the head. With sigmoid losses, -log(number of classes) gives
    every class a probability of about 1 / (number of classes) at first. Big Transfer uses -10."""
    bn_decay: float = 0.9
    """Share of BatchNorm's running statistics that a step keeps, from 0 to below 1. With 0, they
    are the statistics of the last batch. ResNet-RS uses 0 and evaluates moving averages of them."""
    bn_epsilon: float = 1e-5
    """Number that BatchNorm adds to the variance."""
    dropout_rate: float = 0.0
    """Probability that training sets a pooled feature to zero before the head, 0 to below 1."""
    block_dropout_rate: float = 0.0
    """Probability that training sets an activation between the convolutions of a pre-activation
    block to zero (Wide ResNet), 0 to below 1."""
    drop_path_rate: float = 0.0
    """Probability that an example skips the last block in training (stochastic depth), 0 to below
    1. It is smaller in earlier blocks; see drop_path_rule."""
    drop_path_rule: Literal["block", "stage"] = "block"
    """How that probability rises with depth. "block" raises it linearly from 0 at the first block
    (Huang et al. 2016, as in timm). "stage" raises it from stage to stage: 2/5, 3/5, 4/5 and all of
    it (as in TensorFlow's ResNet-RS)."""
    drop_block_rate: float = 0.0
    """Share of the pixels that DropBlock sets to zero in training, from 0 to below 1. It drops
    square regions in the third and fourth stages, as in timm. 0 turns it off."""
    bn_group_size: int | Literal["batch", "device"] = "batch"
    """Images that share BatchNorm statistics in training: "batch" for the whole global batch,
    "device" for the images of one device (no communication, but the result then depends on the
    number of devices), or a number of consecutive images."""
    freeze_bn: bool = False
    """Use BatchNorm's running statistics in training too, and do not update them."""
    remat: bool = False
    """Recompute each block in the backward pass instead of storing its activations: less memory,
    more time."""
    scan: bool = False
    """Run the identical blocks of each stage of five or more blocks as one loop, so that a deep
    network compiles faster."""

    def __post_init__(self) -> None:
        require_share(self, "bn_decay", "dropout_rate", "block_dropout_rate")
        require_share(self, "drop_path_rate", "drop_block_rate")
        require(
            self.weights is not None or self.weights_prefix is None,
            "weights_prefix needs weights, in which it selects a network; set weights too",
        )
        require_positive(self, "bn_epsilon")
        if self.in_channels is not None:
            require_positive(self, "in_channels")
        if isinstance(self.bn_group_size, int):
            require_positive(self, "bn_group_size")
        require(
            math.isfinite(self.head_bias_init),
            f"head_bias_init must be finite, but it is {self.head_bias_init}",
        )
