"""ResNet-50 on ImageNet-1k (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).

The 90 epochs of the paper: learning rate 0.1 for 256 images, five epochs of warm-up, weight decay
1e-4 on the kernels alone, the last scale of each block zero at first, random resized crops and
flips; cosine decay and label smoothing of 0.1 stand in for its steps.  Such a recipe is published
with 77.0 % top-1 (plus or minus 0.2); it has not been measured here.

    resnet-jax train imagenet-resnet50 --data.directory ~/tensorflow_datasets

The data set is imagenet2012 as TensorFlow Datasets prepares it, as TFRecord or array_record;
TensorFlow is not needed to read it.
"""

from resnet_jax.config import CosineConfig, ModelConfig, SGDConfig, TfdsConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig("resnet50", dtype="bfloat16"),
    data=TfdsConfig("~/tensorflow_datasets", name="imagenet2012"),
    optimizer=SGDConfig(learning_rate=0.4, weight_decay=1e-4),
    schedule=CosineConfig(warmup_epochs=5.0),
    batch_size=1024,
    epochs=90.0,
    label_smoothing=0.1,
)
