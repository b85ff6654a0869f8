"""Measure how well a network classifies labeled images."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.evaluation_data import (
    DataArguments,
    check_classes,
    evaluation_errors,
    load_classifier,
    open_and_load,
    open_data,
    progress_bar,
)
from resnet_jax.commands.interrupts import Interrupted, Interrupts
from resnet_jax.commands.results import check_new_files, write_text

if TYPE_CHECKING:
    from resnet_jax.inference import Classifier
    from resnet_jax.inference.evaluation import Evaluation
    from resnet_jax.inference.measures import Measures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """Measure how well a network classifies labeled images.

    Prints accuracy, likelihood and calibration with confidence intervals, and the classes that are
    hardest. Classes are matched by name, not by position; ImageNet's also by their synsets, and the
    folders 0 to 999 of ImageNetV2 by their numbers. The images are prepared as the network needs
    them.

    The exit code is 1 if images were skipped because they cannot be read, and 2 after a mistake.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory, one checkpoint of it, the name of published weights such as
    resnet50.a1_in1k, or a repository such as hf://microsoft/resnet-50."""
    model: str | None = None
    """Name of the network, if RUN is a file of weights, such as resnet50, or resnet50.tv2_in1k to
    use the preprocessing of these published weights as well."""
    output: Path | None = None
    """JSON file for all results."""
    report: Path | None = None
    """HTML file for a page with the results, the confusions and the worst images."""
    corruptions: Flag = False
    """Also evaluate on images with eight corruptions at five severities, which takes 40 times as
    long."""
    temperature: Flag = False
    """Fit the temperature of the probabilities on the calibration split, and store it in the run
    directory."""
    threshold: float | None = None
    """Fit the lowest probability with which a prediction counts as certain, such that the certain
    predictions for the calibration split have this accuracy, such as 0.95. It is stored in the run
    directory."""
    calibration_split: str = "validation"
    """Split on which the temperature and the threshold are fitted."""
    layout: Literal["classes", "imagenet-c"] = "classes"
    """How --data is arranged: "classes" in folders of classes, "imagenet-c" as ImageNet-C, in
    CORRUPTION/SEVERITY/SYNSET."""
    real: Path | None = None
    """The file real.json of reassessed labels, to also measure the ReaL accuracy on the validation
    images of ImageNet."""


def run(argv: list[str], prog: str) -> int:
    """Print the results.

    Return 0, 1 if images were skipped, 130 after Ctrl-C, or 143 after SIGTERM.
    """
    arguments = parse_options(Arguments, argv, prog=prog)
    _check(arguments)
    evaluate = _imagenet_c if arguments.layout == "imagenet-c" else _evaluate
    try:
        with Interrupts():
            return evaluate(arguments)
    except Interrupted as stop:
        stop.add_note("no results were written")
        return stop.report()


def _check(arguments: Arguments) -> None:
    """Raise `UsageError` for options that do not fit each other, before any long work."""
    check_new_files(arguments.output, arguments.report, overwrite=arguments.overwrite)
    if arguments.threshold is not None and not 0 < arguments.threshold <= 1:
        raise UsageError(
            f"--threshold is the wanted accuracy, above 0 and at most 1, such as 0.95, but it is "
            f"{arguments.threshold:g}"
        )
    if arguments.tta != "none" and (arguments.temperature or arguments.threshold is not None):
        raise UsageError(
            "--temperature and --threshold are for predictions from one view of an image; leave "
            "--tta out, and calibrate in a command of its own"
        )
    if arguments.layout == "imagenet-c":
        others = {
            "--split": arguments.split,
            "--report": arguments.report,
            "--corruptions": arguments.corruptions,
            "--temperature": arguments.temperature,
            "--threshold": arguments.threshold,
            "--real": arguments.real,
        }
        given = [name for name, value in others.items() if value not in (None, False)]
        if given:
            raise UsageError(f"{given[0]} has no meaning for --layout imagenet-c; leave it out")
        if arguments.data is None:
            raise UsageError("--layout imagenet-c needs --data, the directory of ImageNet-C")
    if arguments.real is not None:
        if arguments.classes == "data":
            raise UsageError("--real compares all classes; leave --classes data out")
        if not arguments.real.expanduser().is_file():
            raise UsageError(f"{arguments.real} does not exist; give the path of real.json")


def _evaluate(arguments: Arguments) -> int:
    from resnet_jax.inference.corruptions import CORRUPTIONS, SEVERITIES
    from resnet_jax.inference.evaluation import evaluate, evaluate_corruptions
    from resnet_jax.inference.imagenet_sets import read_real_labels, real_accuracy

    calibrates = arguments.temperature or arguments.threshold is not None
    file = _calibration_file(arguments) if calibrates else None
    real_labels = None
    if arguments.real is not None:
        with evaluation_errors():
            real_labels = read_real_labels(arguments.real.expanduser())
    data, (classifier,) = open_and_load(arguments, [arguments.run], arguments.model)
    result: dict[str, Any] = {"model": arguments.run, "tta": arguments.tta}
    if file is not None:
        classifier = _calibrate(arguments, classifier, file)
    with evaluation_errors():
        with progress_bar(f"{data.name} {data.split}", len(data)) as advance:
            found = evaluate(
                classifier,
                data,
                classes=arguments.classes,
                on_unreadable=arguments.on_unreadable,
                tta=arguments.tta,
                progress=advance,
            )
        result |= found.to_json()
        if real_labels is not None:
            result["real"] = real_accuracy(found, real_labels)._asdict()
        robustness: dict[str, list[Measures]] = {}
        if arguments.corruptions:
            total = len(data) * len(CORRUPTIONS) * len(SEVERITIES)
            with progress_bar("corruptions", total) as advance:
                robustness = evaluate_corruptions(
                    classifier,
                    data,
                    classes=arguments.classes,
                    on_unreadable=arguments.on_unreadable,
                    tta=arguments.tta,
                    progress=advance,
                )
            result["corruptions"] = {
                name: [measures._asdict() for measures in row] for name, row in robustness.items()
            }
    _print(arguments, found, result, robustness)
    if arguments.output is not None:
        _write_json(arguments.output, result)
    if arguments.report is not None:
        from resnet_jax.commands.evaluation_report import write_evaluation_report

        path = arguments.report.expanduser()
        with evaluation_errors():
            write_evaluation_report(path, arguments.run, classifier, data, found, robustness)
        print(f"report: {path}")
    for name, reason in found.unreadable.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    return int(bool(found.unreadable))


def _calibration_file(arguments: Arguments) -> Path:
    """Return where the calibration will be stored.

    Raises:
        UsageError: The model is no run, or it has a calibration that must not be replaced.
    """
    from resnet_jax.inference.calibration import calibration_file

    file = calibration_file(arguments.run)
    if file is None:
        option = "--temperature" if arguments.temperature else "--threshold"
        raise UsageError(
            f"{option} stores the result in a run directory, and {arguments.run} is none; see "
            "docs/evaluation.md for how to calibrate other weights in Python"
        )
    check_new_files(file, overwrite=arguments.overwrite)
    return file


def _calibrate(arguments: Arguments, classifier: "Classifier", file: Path) -> "Classifier":
    """Fit and store a calibration, and return the classifier with it."""
    import datetime

    from resnet_jax.inference.calibration import write_calibration
    from resnet_jax.inference.evaluation import evaluate, fit_calibration

    data = open_data(arguments, arguments.run, arguments.calibration_split)
    if data.split == "train":
        raise UsageError(
            "the images of the training split are classified too well to calibrate on; give "
            "another --calibration-split"
        )
    check_classes(classifier, data)
    with evaluation_errors(), progress_bar(f"{data.name} {data.split}", len(data)) as advance:
        before = evaluate(classifier, data, on_unreadable=arguments.on_unreadable, progress=advance)
    try:
        calibration = fit_calibration(
            classifier,
            before,
            temperature=arguments.temperature,
            accuracy=arguments.threshold,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
    except ValueError as error:
        raise UsageError(f"{data.name} {data.split}: {error}") from error
    with evaluation_errors():
        write_calibration(file, calibration)
    after = before.with_calibration(calibration)
    print(f"fitted on {data.name} {data.split}, {before.measures.images} images: {file}")
    if arguments.temperature:
        print(
            f"  temperature {calibration.temperature:.4f}: negative log-likelihood "
            f"{before.measures.nll:.4f} before, {after.measures.nll:.4f} after; calibration error "
            f"{before.measures.ece:.4f} before, {after.measures.ece:.4f} after"
        )
    if calibration.threshold is not None and arguments.threshold is not None:
        kept = after.scores.confidence >= calibration.threshold
        print(
            f"  threshold {calibration.threshold:.4f}: {100 * kept.mean():.1f} % of the images are "
            f"certain, and {100 * after.scores.top1[kept].mean():.1f} % of these are right"
        )
    return classifier.calibrated(calibration)


def _imagenet_c(arguments: Arguments) -> int:
    from rich.console import Console
    from rich.table import Table

    from resnet_jax.inference.imagenet_sets import evaluate_imagenet_c, open_imagenet_c

    classifier = load_classifier(arguments.run, arguments.model, arguments.max_pixels)
    with evaluation_errors():
        sets = open_imagenet_c(arguments.data or "")
        for severities in sets.values():
            for data in severities:
                check_classes(classifier, data)
        total = sum(len(data) for severities in sets.values() for data in severities)
        with progress_bar("ImageNet-C", total) as advance:
            found = evaluate_imagenet_c(
                classifier,
                sets,
                on_unreadable=arguments.on_unreadable,
                tta=arguments.tta,
                progress=advance,
            )
    table = Table("top-1 error %", *map(str, range(1, 6)), "mean", box=None)
    for name, row in found.measures.items():
        errors = [100 * (1 - measures.top1) for measures in row]
        table.add_row(name, *(f"{error:.2f}" for error in [*errors, sum(errors) / len(errors)]))
    Console().print(table)
    print(f"mean error {100 * found.mean_error:.2f} %")
    mce = found.mean_corruption_error
    if mce is not None:
        print(f"mean corruption error (mCE) {100 * mce:.2f} % of AlexNet's")
    if arguments.output is not None:
        _write_json(
            arguments.output,
            {
                "model": arguments.run,
                "tta": arguments.tta,
                "data": arguments.data,
                "mean_error": found.mean_error,
                "mean_corruption_error": mce,
                "corruptions": {
                    name: [measures._asdict() for measures in row]
                    for name, row in found.measures.items()
                },
            },
        )
    return 0


def _write_json(path: Path, result: dict[str, Any]) -> None:
    import json

    from resnet_jax import __version__

    with evaluation_errors():
        content = {"library_version": __version__, **result}
        write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"results: {path}")


def _print(
    arguments: Arguments,
    found: "Evaluation",
    result: dict[str, Any],
    robustness: "dict[str, list[Measures]]",
) -> None:
    from rich.console import Console

    from resnet_jax.commands.evaluation_tables import (
        class_table,
        confusion_table,
        corruption_table,
        measure_table,
    )

    console = Console()
    console.print(
        f"{arguments.run} on {found.data} {found.split}: {found.measures.images:,} images, "
        f"{found.images_per_second:.1f} images/s",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    console.print(measure_table(found.measures))
    if found.calibration.temperature != 1:
        print(f"The probabilities have the temperature {found.calibration.temperature:.4f}")
    if certain := result["certain"]:
        accuracy = certain["accuracy"]
        print(
            f"With the threshold {found.calibration.threshold:.4f}, "
            f"{100 * certain['share']:.1f} % of the images are certain"
            + ("" if accuracy is None else f", and {100 * accuracy:.1f} % of these are right")
        )
    if real := result.get("real"):
        print(
            f"ReaL accuracy {100 * real['top1']:.2f} % of {real['images']:,} images "
            f"({real['unlabeled']:,} have no label)"
        )
    console.print(class_table(found.classes))
    if (confusions := confusion_table(found.matrix, found.class_names)) is not None:
        console.print(confusions)
    if robustness:
        console.print(corruption_table(found.measures, robustness))
    present = sum(row.images > 0 for row in found.classes)
    if arguments.classes == "model" and (present, len(found.class_names)) == (200, 1000):
        print(
            "The data have 200 of the 1000 classes. ImageNet-A and ImageNet-R are measured among "
            "these alone: --classes data"
        )
