"""The nearest images are those with the largest cosine similarity."""

from pathlib import Path

import numpy as np
import pytest

from resnet_jax.inference.neighbors import Neighbors


def test_neighbors_are_ordered_by_cosine_similarity() -> None:
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    # The length does not count.
    collection = Neighbors([f"{i}.jpg" for i in range(50)], features * np.arange(1, 51)[:, None])
    queries = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(features, axis=1)
    similarities = queries @ features.T / lengths
    for found, row in zip(collection.nearest(queries, count=6), similarities, strict=True):
        best = np.argsort(-row)[:6]
        assert [neighbor.image for neighbor in found] == [f"{i}.jpg" for i in best]
        np.testing.assert_allclose([n.similarity for n in found], row[best], atol=1e-6)


def test_an_image_is_not_its_own_neighbor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    features = np.eye(3, dtype=np.float32)
    collection = Neighbors([str(tmp_path / f"{i}.jpg") for i in range(3)], features)
    assert len(collection.nearest(features, count=5)[0]) == 3
    assert collection.nearest(features, count=1)[1][0].similarity == 1
    # The same file by another path.
    found = collection.nearest(features[1:2], count=5, images=["1.jpg"])[0]
    assert [neighbor.image for neighbor in found] == [str(tmp_path / f"{i}.jpg") for i in (0, 2)]
    # An image that is not in the collection has all of it as neighbors, also beside one that is.
    queries = {"new.jpg": features[0], "2.jpg": features[2]}
    new, own = collection.nearest(np.array([*queries.values()]), count=5, images=[*queries])
    assert [Path(neighbor.image).name for neighbor in new] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [Path(neighbor.image).name for neighbor in own] == ["0.jpg", "1.jpg"]


def test_an_image_alone_has_no_neighbor() -> None:
    alone = Neighbors(["a.jpg"], np.ones((1, 4), np.float32))
    own, new = alone.nearest(np.ones((2, 4), np.float32), count=3, images=["a.jpg", "b.jpg"])
    assert own == []
    assert [neighbor.image for neighbor in new] == ["a.jpg"]


def test_features_of_zeros_have_no_direction() -> None:
    collection = Neighbors(["a", "b"], np.zeros((2, 4), np.float32))
    (found,) = collection.nearest(np.ones((1, 4), np.float32), count=2)
    assert found == [("a", 0.0), ("b", 0.0)]


def test_impossible_collections_are_refused() -> None:
    with pytest.raises(ValueError, match="without readable images"):
        Neighbors([], np.empty((0, 4), np.float32))
    with pytest.raises(ValueError, match=r"must be \[2, C\]"):
        Neighbors(["a", "b"], np.zeros((3, 4), np.float32))
