"""ResNet-RS-50 on ImageNet-1k at 160x160 pixels (Bello et al. 2021, arXiv:2103.07579).

This follows official/vision/configs/experiments/image_classification/imagenet_resnetrs50_i160.yaml
of https://github.com/tensorflow/models. Training takes 350 epochs with a batch of 4,096. The
momentum is 0.9 without Nesterov's term. The learning rate falls from 1.6 as a cosine, step by step.
In the first five epochs it rises instead, to the value that the cosine has by then. All parameters
have a weight decay of 4e-5, except those of normalization layers. Labels are smoothed by 0.1.
Images get RandAugment with two operations of strength 10. Dropout before the head has a rate of
0.25. Averages with a decay of 0.9999 are evaluated. The activation is swish. BatchNorm keeps only
the statistics of the last batch, and the averages smooth them.

There are two differences. RandAugment is timm's translation of TensorFlow's, which has no Cutout.
Crops are resized with antialiasing, and in the original without. In addition, BatchNorm computes
its statistics over the whole batch here, and over the images of one TPU core in the original.

The published top-1 accuracy is 79.1 % (documentation of the TensorFlow Model Garden). The paper,
whose networks have ReLU, reports 78.8 %. The accuracy of this experiment has not been measured yet.

    resnet-jax train imagenet-resnetrs50 --data.directory ~/tensorflow_datasets

The data set is imagenet2012, as prepared by TensorFlow Datasets.
"""

from resnet_jax.config import (
    AugmentConfig,
    AveragingConfig,
    CosineConfig,
    ImageConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    TfdsConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig("resnetrs50", dtype="bfloat16", act="silu", bn_decay=0.0, dropout_rate=0.25),
    data=TfdsConfig(
        "~/tensorflow_datasets",
        name="imagenet2012",
        images=ImageConfig(
            image_size=160,
            train_interpolation="pil_bilinear",
            augment=AugmentConfig(
                policy="timm_randaugment",
                magnitude=10.0,
                magnitude_std=0.0,
                op_probability=1.0,
                fill=(128,),
            ),
        ),
    ),
    optimizer=SGDConfig(
        learning_rate=1.6, nesterov=False, weight_decay=4e-5, decay_on="all_but_norm"
    ),
    schedule=CosineConfig(warmup_epochs=5.0, warmup_prefix=False, warmup_target="decay"),
    loss=SoftmaxConfig(label_smoothing=0.1),
    averaging=AveragingConfig(decay=0.9999, warmup="tensorflow"),
    batch_size=4096,
    epochs=350.0,
)
