"""Every row of the table of published weights can be built, and well-known values are right."""

import pytest

from resnet_jax import create_model, list_models, list_pretrained

# https://github.com/openai/CLIP, clip/clip.py.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def test_every_row_is_a_member_and_has_plausible_facts() -> None:
    rows = list_pretrained()
    assert len({row.name for row in rows}) == len(rows) > 150
    for row in rows:
        assert row.model in list_models(), row
        assert create_model(row.model, num_classes=row.num_classes).num_classes == row.num_classes
        assert row.source == row.url or row.source == f"hf://timm/{row.name}"
        assert (row.top1 is None) == (row.top5 is None)
        if row.top1 is not None and row.top5 is not None:
            assert 60 < row.top1 < row.top5 < 99, row
            assert row.num_classes == 1000, row
        assert 128 <= row.input_size <= row.test_size <= 512, row
        assert 0.8 < row.crop_fraction <= 1, row
        assert row.interpolation in {"bilinear", "bicubic"}, row
        assert row.mean in {(0.485, 0.456, 0.406), (0.5, 0.5, 0.5), CLIP_MEAN}, row
        assert row.std in {(0.229, 0.224, 0.225), (0.5, 0.5, 0.5), CLIP_STD}, row
        assert (row.mean == CLIP_MEAN) == (row.std == CLIP_STD) == ("_clip" in row.model), row
        assert row.licence in {"apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "mit", None}, row


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # From https://pytorch.org/vision/stable/models.html. timm resizes slightly differently.
        ("resnet18.tv_in1k", 69.758),
        ("resnet50.tv_in1k", 76.130),
        ("resnet50.tv2_in1k", 80.858),
        ("resnet101.tv_in1k", 77.374),
        ("resnext50_32x4d.tv_in1k", 77.618),
        ("wide_resnet50_2.tv_in1k", 78.468),
        # From Wightman et al. 2021, table 3: A1 at 288 pixels has 81.0 to 81.4, depending on the
        # seed.
        ("resnet50.a1_in1k", 81.2),
        # Top-1 errors of the README of IBN-Net, and of Gao et al. 2019, table 1.
        ("resnet50_ibn_a.in1k", 100 - 22.54),
        ("res2net50_26w_4s.in1k", 100 - 22.01),
    ],
)
def test_accuracies_are_those_published(name: str, published: float) -> None:
    (row,) = list_pretrained(name)
    assert row.top1 == pytest.approx(published, abs=0.1)


def test_a_pattern_selects() -> None:
    assert [row.name for row in list_pretrained("resnet18.tv*")] == ["resnet18.tv_in1k"]
    assert list_pretrained("alexnet*") == []
