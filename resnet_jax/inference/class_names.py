"""Which class of a network each class of a data set is, by name."""

from collections.abc import Sequence

import numpy as np

from resnet_jax.data.imagenet import imagenet_classes

# Number of names that a message lists.
_LISTED = 12


def match_classes(data: Sequence[str], model: Sequence[str]) -> np.ndarray:
    """Return which class of a network each class of a data set is.

    Classes have the same name in both, in any order, and the data may lack some of them.  A class
    of ImageNet also matches under its synset, such as ``n02123045`` for ``tabby``, in both
    directions.  A network for ImageNet-1k also takes folders named ``0`` to ``999``, as in
    ImageNetV2, for the indices of the classes.

    Args:
        data: Names of the C classes of the data.
        model: Names of the K classes of the network, in the order of the logits.

    Returns:
        int64[C], indices from 0 to K - 1.

    Raises:
        ValueError: A class of the data is not a class of the network. The message lists both.
    """
    spellings = [(data, model), (synsets(data), synsets(model))]
    if is_imagenet(model):
        spellings.append(([_synset_of_index(name) for name in data], synsets(model)))
    for names, known in spellings:
        numbers = {name: k for k, name in enumerate(known)}
        if all(name in numbers for name in names):
            return np.array([numbers[name] for name in names], np.int64)
    known = {*model, *synsets(model)}
    missing = [
        name for name, synset in zip(data, synsets(data), strict=True) if not {name, synset} & known
    ]
    raise ValueError(
        f"{len(missing)} of the {len(data)} classes of the data are not classes of the model: "
        f"{_list(missing)}; the data have {_list(data)}; the model has {_list(model)}; rename the "
        "folders or labels after the classes of the model"
    )


def synsets(names: Sequence[str]) -> list[str]:
    """Return the synsets of classes of ImageNet, and the names of other classes unchanged.

    The classes are those of ImageNet if all names are names of ImageNet-1k, or if there are as many
    as ImageNet-12k or -21k has and all are names of that.
    """
    for count in (1000, len(names)):
        if count in (1000, 11821, 21843):
            known = {entry.name: entry.synset for entry in imagenet_classes(count)}
            if all(name in known for name in names):
                return [known[name] for name in names]
    return list(names)


def is_imagenet(names: Sequence[str]) -> bool:
    """Return whether these are the 1000 classes of ImageNet-1k, by name or synset, in any order."""
    return len(names) == 1000 and set(synsets(names)) == {
        entry.synset for entry in imagenet_classes()
    }


def _synset_of_index(name: str) -> str:
    """Return the synset of the class with this index, or the name itself if it is no index."""
    is_index = name.isdecimal() and int(name) < 1000
    return imagenet_classes()[int(name)].synset if is_index else name


def _list(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
