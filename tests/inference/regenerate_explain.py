"""Rewrites `explain_values.npz`: heatmaps of pytorch-grad-cam and attributions of Captum.

    python -m tests.inference.regenerate_explain

It needs timm, captum and grad-cam (the package ``pytorch_grad_cam``) in an environment of their
own; `tests/golden/regenerate.py` says how to make one.  The file was written with timm 1.0.31,
grad-cam 1.5.7, captum 0.9.0 and torch 2.13.0.
"""

import json

import numpy as np
import timm
import torch
from captum.attr import IntegratedGradients
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from tests.golden import golden
from tests.inference import explain_cases
from tests.inference.explain_cases import (
    CASES,
    NUM_CLASSES,
    STAGES,
    STEPS,
    STRIDE,
    TARGETS,
    VALUES,
    Case,
)


def build(case: Case) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """Return a float64 network with golden weights, and the shapes of these."""
    model = timm.create_model(case.name, num_classes=NUM_CLASSES, **case.timm).double().eval()
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for name, tensor in state.items():
        tensor.copy_(torch.from_numpy(golden.tensor(name, tuple(tensor.shape))))
    return model, {name: tuple(tensor.shape) for name, tensor in state.items()}


def main() -> None:
    """Compute the values of every case and write the file."""
    torch.set_num_threads(1)
    batch = torch.from_numpy(explain_cases.images()).double().permute(0, 3, 1, 2)
    targets = [ClassifierOutputTarget(target) for target in TARGETS]
    values = {}
    for case in CASES:
        model, shapes = build(case)
        values[f"{case.name}/shapes"] = np.array(json.dumps(shapes))
        stages = getattr(model, "stages", None) or [
            getattr(model, f"layer{i}") for i in range(1, 5)
        ]
        for method, cam_class in (("grad-cam", GradCAM), ("grad-cam++", GradCAMPlusPlus)):
            for stage in STAGES:
                with cam_class(model, [stages[stage - 1]]) as cam:
                    heat = cam(input_tensor=batch, targets=targets)
                values[f"{case.name}/{method}/{stage}"] = heat[:, ::STRIDE, ::STRIDE]
        attributions = IntegratedGradients(model).attribute(
            batch, target=torch.tensor(TARGETS), n_steps=STEPS, method="gausslegendre"
        )
        attributions = attributions.detach().permute(0, 2, 3, 1).numpy()
        values[f"{case.name}/integrated-gradients"] = attributions[:, ::STRIDE, ::STRIDE]
    arrays = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in values.items()
    }
    np.savez_compressed(VALUES, **arrays)


if __name__ == "__main__":
    main()
