"""Classes are found by name, also those of ImageNet by their synsets and indices."""

import numpy as np
import pytest

from resnet_jax import imagenet_classes
from resnet_jax.inference.class_names import is_imagenet, match_classes, synsets

NAMES = [entry.name for entry in imagenet_classes()]
SYNSETS = [entry.synset for entry in imagenet_classes()]


def test_classes_match_by_name_in_any_order() -> None:
    assert match_classes(["dog", "ant"], ["ant", "cat", "dog"]).tolist() == [2, 0]
    # Names that are numbers are names if the model has them.
    assert match_classes(["1", "0"], ["0", "1", "2"]).tolist() == [1, 0]


def test_imagenet_matches_by_synset_in_both_directions() -> None:
    assert match_classes(["n02123045", "n01440764"], NAMES).tolist() == [281, 0]
    assert match_classes(["tabby", "tench"], SYNSETS).tolist() == [281, 0]
    names_21k = [entry.name for entry in imagenet_classes(21843)]
    (found,) = match_classes(["n02123045"], names_21k)
    assert imagenet_classes(21843)[found].synset == "n02123045"
    assert synsets(["cat", "dog"]) == ["cat", "dog"]
    assert is_imagenet(NAMES[::-1])
    assert not is_imagenet(NAMES[:-1])


def test_folders_with_numbers_are_indices_of_imagenet_in_the_order_of_numbers() -> None:
    # Sorted as text, 10 comes before 2: positions would be wrong from the third class on.
    as_text = sorted(map(str, range(1000)))
    assert as_text[2] == "10"
    np.testing.assert_array_equal(match_classes(as_text, NAMES), np.array(as_text, int))
    # A model that was trained on the synsets in another order gets the same classes.
    found = match_classes(["281"], SYNSETS[::-1])
    assert SYNSETS[::-1][found[0]] == "n02123045"


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (["cat", "bird"], ["cat", "dog"]),
        (["0", "1"], ["cat", "dog"]),
        (["n02123045", "n02123046"], NAMES),
        (["1000"], NAMES),
    ],
)
def test_classes_that_the_model_lacks_are_errors_with_both_lists(
    data: list[str], model: list[str]
) -> None:
    with pytest.raises(ValueError, match="are not classes of the model") as caught:
        match_classes(data, model)
    assert data[-1] in str(caught.value)
    assert model[0] in str(caught.value)
