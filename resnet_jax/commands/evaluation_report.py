"""The page that `resnet-jax evaluate --report` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from resnet_jax.data.labeled import LabeledImages
from resnet_jax.inference import Classifier
from resnet_jax.inference.class_names import match_classes
from resnet_jax.inference.evaluation import Evaluation
from resnet_jax.inference.explain import explainer
from resnet_jax.inference.measures import Measures
from resnet_jax.report import EvaluationRecord, LineChart, RunRecord, Series, write_report


def write_evaluation_report(
    path: Path,
    name: str,
    classifier: Classifier,
    data: LabeledImages,
    evaluation: Evaluation,
    corruptions: Mapping[str, Sequence[Measures]],
) -> None:
    """Write the page of an evaluation.

    Args:
        path: The HTML file.
        name: Name of the model.
        classifier: The classifier.
        data: The images.
        evaluation: Evaluation of the classifier on the images.
        corruptions: As `evaluate_corruptions` returns them, or an empty mapping.
    """
    measures = evaluation.measures
    # The classes of the page are some or all of those of the classifier.
    numbers = match_classes(evaluation.class_names, classifier.class_names)
    heat = explainer(classifier.model, classifier.variables, classifier.preprocessing.on_device)

    def image(index: int) -> np.ndarray:
        return classifier.preprocessing.on_host(data[index].image, max_pixels=classifier.max_pixels)

    write_report(
        path,
        RunRecord(
            title=f"{name} on {data.name} {data.split}",
            facts={
                "model": name,
                "data": f"{data.name} {data.split}",
                "temperature": f"{evaluation.calibration.temperature:.4f}",
                "throughput": f"{evaluation.images_per_second:.1f} images/s",
            },
            headline={
                "top-1 accuracy": f"{100 * measures.top1:.2f} %",
                "images": f"{measures.images:,}",
                "negative log-likelihood": f"{measures.nll:.4f} nats",
                "calibration error": f"{100 * measures.ece:.2f} %",
            },
            evaluation=EvaluationRecord(
                split=data.split,
                class_names=evaluation.class_names,
                labels=evaluation.labels,
                logits=evaluation.calibrated_logits,
                mask=evaluation.mask,
                image=image,
                name=evaluation.names.__getitem__,
                explain=lambda images, targets: heat(images, numbers[targets]),
            ),
            charts=corruption_charts(measures, corruptions) if corruptions else [],
        ),
    )


def corruption_charts(
    clean: Measures, corruptions: Mapping[str, Sequence[Measures]]
) -> list[LineChart]:
    """Return the accuracy by severity for each corruption, and for their mean; 0 is no corruption.

    Args:
        clean: Measures on the images themselves.
        corruptions: As `evaluate_corruptions` returns them.
    """
    rows = {
        name.replace("_", " "): [clean.top1, *(measures.top1 for measures in row)]
        for name, row in corruptions.items()
    }
    mean = {"mean": np.mean(list(rows.values()), axis=0).tolist()}
    titles = {
        "Top-1 accuracy on corrupted images": rows,
        "Top-1 accuracy on corrupted images, mean of the corruptions": mean,
    }
    return [
        LineChart(
            title=title,
            x_label="severity of the corruption",
            series=[
                Series(name, range(len(values)), [100 * value for value in values])
                for name, values in lines.items()
            ],
            unit="%",
        )
        for title, lines in titles.items()
    ]
