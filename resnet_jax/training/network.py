"""The network that a configuration describes, built before the data are opened."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from resnet_jax.config import ConfigError, FinetuneConfig, ModelConfig, TrainConfig
from resnet_jax.models import ResNet, create_model
from resnet_jax.models.layers import conv, fan_in_kernel, max_pool
from resnet_jax.models.names import named_value
from resnet_jax.training.optim import frozen


def create_network(config: TrainConfig, num_devices: int) -> ResNet:
    """Return the network of an experiment, with the number of classes that its name implies.

    Args:
        config: The experiment.
        num_devices: Number of devices of the run, which share the batch.

    Raises:
        ConfigError: The network is unknown, its fields do not go together, or it has no parameters
            that ``finetune.freeze`` matches.
    """
    try:
        model = create_model(config.model.name, **_overrides(config, num_devices))
        if config.model.norm is None and not config.finetune.freeze:
            return model
        # Shapes alone show whether the channels make whole groups and which layers are frozen.
        variables = variable_shapes(model)
        layers = frozen_statistics(variables, config.finetune)
        if not layers or config.model.freeze_bn:
            return model
        return model.clone(freeze_bn=layers)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def frozen_statistics(variables: Any, finetune: FinetuneConfig) -> tuple[str, ...]:
    """Return the paths of the BatchNorm layers whose running statistics are frozen.

    They are the layers whose scale and bias are both frozen, such as ``"stem/norm"`` or, with
    ``scan``, ``"stage3/blocks/norm1"``.

    Args:
        variables: ``params`` and ``batch_stats`` of a network; shapes suffice.
        finetune: Which parameters are frozen, and whether their statistics are.

    Raises:
        ValueError: A pattern matches no parameter, or only some of the blocks that ``scan`` holds
            in one array.
    """
    if not finetune.freeze:
        return ()
    leaves = flatten_dict(frozen(variables["params"], finetune.freeze))
    if not finetune.freeze_statistics:
        return ()
    statistics: dict[tuple[str, ...], Any] = flatten_dict(variables.get("batch_stats", {}))
    layers = dict.fromkeys(path[:-1] for path in statistics)
    return tuple(
        "/".join(layer)
        for layer in layers
        if all(is_frozen for path, is_frozen in leaves.items() if path[:-1] == layer)
    )


def _overrides(config: TrainConfig, num_devices: int) -> dict[str, Any]:
    """Return the arguments of `create_model`, without those that the network decides itself."""
    model = config.model
    overrides: dict[str, Any] = {
        "small_input": model.small_input,
        "output_stride": model.output_stride,
        "zero_init_residual": model.zero_init_residual,
        "bn_decay": model.bn_decay,
        "bn_epsilon": model.bn_epsilon,
        "bn_group_size": config.statistics_size(num_devices),
        "freeze_bn": model.freeze_bn,
        "dropout_rate": model.dropout_rate,
        "block_dropout_rate": model.block_dropout_rate,
        "drop_path_rate": model.drop_path_rate,
        "drop_path_rule": model.drop_path_rule,
        "drop_block_rate": model.drop_block_rate,
        "head_bias_init": model.head_bias_init,
        "remat": model.remat,
        "scan": model.scan,
        "dtype": named_value("dtype", model.dtype),
    }
    for name in ("act", "norm", "conv", "stem_pool", "in_channels"):
        if (value := getattr(model, name)) is not None:
            overrides[name] = named_value(name, value)
    if model.norm_scale_init != "ones":
        overrides["norm_scale_init"] = named_value("norm_scale_init", model.norm_scale_init)
    if model.conv_init == "fan_in":
        overrides["conv"] = partial(overrides.get("conv", conv), kernel_init=fan_in_kernel)
    _check_replaced(model, overrides)
    return overrides


def _check_replaced(model: ModelConfig, overrides: dict[str, Any]) -> None:
    """Raise `ValueError` if the network has another kind of layer than the one that is replaced."""
    if not overrides.keys() & {"conv", "stem_pool"}:
        return
    network = create_model(model.name, small_input=model.small_input)
    if "conv" in overrides and network.conv is not conv:
        raise ValueError(
            f"conv and conv_init are for plain convolutions, and {model.name} has others; leave "
            "model.conv at None and model.conv_init at fan_out"
        )
    if "stem_pool" in overrides and network.stem_pool is not max_pool:
        raise ValueError(
            f"stem_pool={model.stem_pool} replaces max-pooling, which the stem of {model.name} "
            "does not have; leave model.stem_pool at None"
        )


def variable_shapes(model: ResNet) -> Any:
    """Return the variables of a network as `jax.ShapeDtypeStruct`."""
    images = jnp.zeros((1, 32, 32, model.in_channels or 3))
    return jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))
