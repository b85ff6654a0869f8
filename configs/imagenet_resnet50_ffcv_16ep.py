"""ResNet-50 on ImageNet-1k in 16 epochs, by FFCV's recipe (Leclerc et al. 2022).

This follows rn50_configs/rn50_16_epochs.yaml of https://github.com/libffcv/ffcv-imagenet. Training
takes 16 epochs with a batch of 4,096 on eight GPUs. The momentum is 0.9 without Nesterov's term.
The learning rate rises from nearly 0 to 1.7 in two epochs and then falls to 0 in a straight line.
All parameters have a weight decay of 1e-4, except the scales and biases of BatchNorm outside of
shortcuts. Labels are smoothed by 0.1. The training images grow from 160x160 to 192x192 pixels in
epoch 12, and evaluation uses 256x256 pixels and averages the logits of each image and its mirror
image. The inputs of convolutions that have a stride are blurred.

There are two differences. In the original, the sides of the stored images have at most 500
pixels, half of the images are stored as JPEG files of quality 90, and crops are resized by
averaging areas. Convolutions compute in bfloat16, and in the original in float16.

The published top-1 accuracy is 73.8 %, reached in 14.9 minutes on eight A100 (README of the
repository). The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnet50-ffcv-16ep --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets.
"""

from resnet_jax.config import (
    ImageConfig,
    LinearConfig,
    ModelConfig,
    ResizingConfig,
    SGDConfig,
    SoftmaxConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig(
        "resnet50",
        dtype="bfloat16",
        conv="blurred",
        zero_init_residual=False,
        bn_group_size=512,
    ),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(image_size=192, eval_image_size=256),
    ),
    optimizer=SGDConfig(
        learning_rate=1.7, nesterov=False, weight_decay=1e-4, decay_on="all_but_named_norm"
    ),
    schedule=LinearConfig(warmup_epochs=2.0, warmup_start=1e-4),
    loss=SoftmaxConfig(label_smoothing=0.1),
    resizing=ResizingConfig(initial_size=160, start_epoch=11.0, end_epoch=13.0),
    batch_size=4096,
    epochs=16.0,
    tta="flip",
)
