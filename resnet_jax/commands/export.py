"""Write a trained network in a format that other programs load."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.results import check_new_files, check_writable
from resnet_jax.config import ImageConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from resnet_jax.data.labeled import LabeledImages
    from resnet_jax.data.preprocessing import ImageLike
    from resnet_jax.export.program import Program
    from resnet_jax.inference import Classifier

    Predict = Callable[[np.ndarray], np.ndarray]

Format = Literal["stablehlo", "onnx", "safetensors"]

# The options that only some formats have.
_OF_FORMATS: dict[str, tuple[Format, ...]] = {
    "layout": ("safetensors",),
    "batch": ("stablehlo", "onnx"),
    "size": ("stablehlo", "onnx"),
    "input": ("stablehlo", "onnx"),
    "returns": ("stablehlo", "onnx"),
    "no_fold": ("stablehlo", "onnx"),
    "platforms": ("stablehlo",),
    "calibration": ("onnx",),
}
# Number of images that an export for any number is given at once.
_BATCH = 16
# Difference of a probability above which an export is not the network.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write a trained network in a format that other programs load.

    stablehlo is a file that JAX runs, without Flax and without this library. onnx is a file for
    ONNX Runtime and many others. safetensors is a directory that timm or transformers load.

    The files of stablehlo and onnx take uint8 images of the right size, [batch, height, width,
    channels], and return the probabilities of the classes. The normalization is inside, and so are
    the names of the classes and how images are resized and cropped.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The network: a run directory or a checkpoint, the name of published weights such as
    resnet50.a1_in1k, a repository such as hf://microsoft/resnet-50 or a copy of one, or a file of
    weights together with --model."""
    format: Format
    """Format of the export."""
    output: Path
    """File for stablehlo and onnx, directory for safetensors."""
    model: str | None = None
    """Name of the network of a file of weights, such as resnet50, or resnet50.tv2_in1k to use the
    preprocessing of these published weights as well."""
    layout: Literal["timm", "transformers"] = "timm"
    """Whose names and configuration safetensors has: timm has most networks of this library, and
    transformers plain ResNets."""
    batch: int | Literal["dynamic"] = "dynamic"
    """Number of images of a batch. "dynamic" leaves it to each call."""
    size: int | Literal["dynamic"] | None = None
    """Height and width of the images in pixels. By default they are those of the preprocessing.
    "dynamic" leaves them to each call; the export is then slower on CPUs."""
    input: Literal["uint8", "float32"] = "uint8"
    """Type of the images: pixels, which the export normalizes, or the normalized input of the
    network."""
    returns: Literal["probabilities", "logits"] = "probabilities"
    """What the export returns for each class."""
    no_fold: Flag = False
    """Keep BatchNorm. By default it is multiplied into the convolutions before it, where the
    network allows this."""
    int8: Flag = False
    """Store kernels as int8, which makes the file about a quarter as large. onnx also computes with
    integers, whose ranges it measures on --calibration. The accuracy before and after is measured
    if there are labeled images: those of the run, or of --data."""
    data: str | None = None
    """Labeled images on which the accuracy is measured with --int8: a folder with one folder of
    images for each class, or a table. By default it is the data of the run."""
    split: str | None = None
    """Split of these images. By default it is the split on which the run was evaluated."""
    images: int = 1000
    """Largest number of images on which the accuracy is measured, evenly spaced over the split. 0
    measures nothing."""
    calibration: str | None = None
    """Images on which --int8 of onnx measures the ranges of activations: a folder, a file or a
    pattern. By default they are training images of the run."""
    calibration_images: int = 256
    """Largest number of these images, evenly spaced."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """Platforms on which a stablehlo file can be used. Each adds its own program."""
    max_pixels: int = ImageConfig.max_pixels
    """Largest number of pixels of an image on which the accuracy is measured."""
    overwrite: Flag = False
    """Replace files that exist."""


def run(argv: list[str], prog: str) -> int:
    """Write the export, print what it is, and return the exit code, which is 130 after Ctrl-C."""
    arguments = parse_options(Arguments, argv, prog=prog)
    arguments = dataclasses.replace(arguments, output=arguments.output.expanduser())
    _check(arguments)
    try:
        return _export(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _check(arguments: Arguments) -> None:
    """Raise `UsageError` for mistakes that need no network."""
    defaults = {field.name: field.default for field in dataclasses.fields(arguments)}
    for name, formats in _OF_FORMATS.items():
        if arguments.format not in formats and getattr(arguments, name) != defaults[name]:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is for {' and '.join(formats)}; leave it out")
    for name in ("batch", "size"):
        value = getattr(arguments, name)
        if isinstance(value, int) and value < 1:
            raise UsageError(f"--{name} must be at least 1 or dynamic, but it is {value}")
    for name, least in (("images", 0), ("calibration_images", 1), ("max_pixels", 1)):
        if (value := getattr(arguments, name)) < least:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} must be at least {least}, but it is {value}")
    if not arguments.platforms:
        raise UsageError("--platforms needs at least one of cpu, cuda, rocm and tpu")
    if arguments.data is not None and not arguments.int8:
        raise UsageError("--data is for --int8, whose accuracy it measures; leave it out")
    if arguments.calibration is not None and not arguments.int8:
        raise UsageError("--calibration is for --int8; leave it out")
    if arguments.int8 and arguments.layout == "transformers":
        raise UsageError(
            "--int8 is not for --layout transformers, which would ignore the scales of the kernels "
            "and compute with wrong ones; use --layout timm or another format"
        )
    if arguments.format == "safetensors":
        _check_directory(arguments)
    else:
        check_new_files(arguments.output, overwrite=arguments.overwrite)
    if arguments.model is None and Path(arguments.run).expanduser().is_file():
        raise UsageError(
            f"{arguments.run}: a file of weights does not name its network; add its name, such as "
            "--model resnet50"
        )


def _check_directory(arguments: Arguments) -> None:
    from resnet_jax.export import timm, transformers

    directory = arguments.output
    files = timm.FILES if arguments.layout == "timm" else transformers.FILES
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; give the path of a directory")
    if not arguments.overwrite:
        for name in files:
            check_new_files(directory / name if directory.is_dir() else None, overwrite=False)
    check_writable(directory, directory)


def _export(arguments: Arguments) -> int:
    from resnet_jax.commands.evaluation_data import (
        check_classes,
        evaluation_errors,
        load_classifier,
    )

    data = _open_data(arguments) if arguments.int8 and arguments.images else None
    calibrates = arguments.int8 and arguments.format == "onnx"
    calibration = _calibration_images(arguments) if calibrates else []
    classifier = load_classifier(arguments.run, arguments.model, arguments.max_pixels)
    if isinstance(arguments.size, int):
        classifier = _resized(classifier, arguments.size)
    if data is not None:
        check_classes(classifier, data)
    with evaluation_errors():
        try:
            match arguments.format:
                case "stablehlo":
                    predict = _stablehlo(arguments, classifier)
                case "onnx":
                    predict = _onnx(arguments, classifier, calibration)
                case "safetensors":
                    predict = _safetensors(arguments, classifier)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if data is not None:
        _print_accuracy(arguments, classifier, predict, data)
    elif arguments.int8 and arguments.images:
        print("the accuracy was not measured, because there are no labeled images; add --data")
    return _compare(arguments, classifier, predict)


def _resized(classifier: "Classifier", size: int) -> "Classifier":
    """Return the classifier for images of another size."""
    preprocessing = classifier.preprocessing
    if preprocessing.upsample_size is not None:
        raise UsageError(
            f"--size is not for this network, which resamples its images of "
            f"{preprocessing.size[0]} to {preprocessing.upsample_size} pixels; leave it out"
        )
    return classifier.rebuilt(preprocessing=dataclasses.replace(preprocessing, image_size=size))


def _calibration_images(arguments: Arguments) -> "list[ImageLike]":
    """Return the images from which an int8 ONNX model gets the ranges of its activations."""
    from resnet_jax.commands.evaluation_data import DataArguments, evaluation_errors, open_data
    from resnet_jax.export.accuracy import evenly_spaced
    from resnet_jax.inference import expand
    from resnet_jax.inference.rundir import run_directory

    most = arguments.calibration_images
    with evaluation_errors():
        if arguments.calibration is not None:
            try:
                files = list(expand([arguments.calibration]))
            except ValueError as error:
                raise UsageError(str(error)) from error
            return [files[i] for i in evenly_spaced(len(files), most)]
        if run_directory(Path(arguments.run).expanduser()) is None:
            raise UsageError(
                "--int8 of onnx measures the activations on some images; name a folder of them "
                "with --calibration"
            )
        data = open_data(DataArguments(), arguments.run, "train")
        return [data[int(i)].image for i in evenly_spaced(len(data), most)]


def _open_data(arguments: Arguments) -> "LabeledImages | None":
    """Return the images on which the accuracy is measured, or None if there are none."""
    from resnet_jax.commands.evaluation_data import DataArguments, open_data
    from resnet_jax.inference.rundir import run_directory

    if arguments.data is None and run_directory(Path(arguments.run).expanduser()) is None:
        return None
    chosen = DataArguments(data=arguments.data, split=arguments.split)
    return open_data(chosen, arguments.run, arguments.split)


def _stablehlo(arguments: Arguments, classifier: "Classifier") -> "Predict":
    from resnet_jax.export.int8 import quantize_program
    from resnet_jax.export.program import describe
    from resnet_jax.export.runners import stablehlo_runner
    from resnet_jax.export.stablehlo import load, write_stablehlo

    program = _program(arguments, classifier, by_platform=True)
    if arguments.int8:
        program = quantize_program(program)
    write_stablehlo(
        program,
        arguments.output,
        metadata=describe(classifier, input_dtype=arguments.input, output=arguments.returns),
        batch=arguments.batch,
        any_size=arguments.size == "dynamic",
        platforms=arguments.platforms,
    )
    _print_file(arguments, program)
    print(f"platforms: {', '.join(arguments.platforms)}")
    return stablehlo_runner(load(arguments.output), str(arguments.output)).run


def _program(arguments: Arguments, classifier: "Classifier", *, by_platform: bool) -> "Program":
    from resnet_jax.export.program import build_program

    program = build_program(
        classifier,
        input_dtype=arguments.input,
        fold=not arguments.no_fold,
        output=arguments.returns,
        by_platform=by_platform,
    )
    if program.why_not_folded:
        print(f"BatchNorm is not folded: {program.why_not_folded}")
    return program


def _print_file(arguments: Arguments, program: "Program") -> None:
    height, width, channels = program.image_shape
    size = "any size" if arguments.size == "dynamic" else f"{height}, {width}"
    megabytes = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output}: {megabytes:.1f} MB")
    print(
        f"takes {program.input_dtype}[{arguments.batch}, {size}, {channels}], returns "
        f"{program.output}"
    )


def _safetensors(arguments: Arguments, classifier: "Classifier") -> "Predict":
    from resnet_jax.export import timm, transformers
    from resnet_jax.inference import Classifier

    directory, overwrite = arguments.output, arguments.overwrite
    if arguments.layout == "timm":
        config = timm.write_timm(classifier, directory, int8=arguments.int8, overwrite=overwrite)
        files = timm.FILES
        call = f'timm.create_model("local-dir:{directory}", pretrained=True)'
        what = config["architecture"]
    else:
        transformers.write_transformers(classifier, directory, overwrite=overwrite)
        files = transformers.FILES
        call = f'AutoModelForImageClassification.from_pretrained("{directory}")'
        what = "ResNetForImageClassification"
    megabytes = sum((directory / name).stat().st_size for name in files) / 1e6
    print(f"{directory}: {megabytes:.1f} MB, {what}")
    if arguments.int8:
        print(f'loads with Classifier.from_pretrained("{directory}"); timm does not know int8')
    else:
        print(f"loads with {call}")
    exported = Classifier.from_pretrained(str(directory))

    def predict(pixels: "np.ndarray") -> "np.ndarray":
        import numpy as np

        return np.asarray(exported.forward(pixels).logits)

    return predict


def _onnx(
    arguments: Arguments, classifier: "Classifier", calibration: "Sequence[ImageLike]"
) -> "Predict":
    import tempfile

    import jax.numpy as jnp

    from resnet_jax.export.onnx import write_onnx
    from resnet_jax.export.program import abstract_images, describe
    from resnet_jax.inference.onnx_runtime import OnnxModel

    # onnxruntime has no convolutions in bfloat16 on CPUs.
    classifier = classifier.rebuilt(model=classifier.model.clone(dtype=jnp.float32))
    program = _program(arguments, classifier, by_platform=False)
    images = abstract_images(program, batch=arguments.batch, any_size=arguments.size == "dynamic")
    metadata = describe(classifier, input_dtype=arguments.input, output=arguments.returns)
    output = arguments.output
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as place:
        # Quantization begins with the model in float32.
        file = Path(place) / "float32.onnx" if arguments.int8 else output
        write_onnx(
            program.function,
            (program.variables, images),
            file,
            metadata=metadata,
            output_name=arguments.returns,
            overwrite=arguments.overwrite,
        )
        if arguments.int8:
            _quantize(arguments, classifier, file, calibration)
    _print_file(arguments, program)
    return OnnxModel(output)


def _quantize(
    arguments: Arguments,
    classifier: "Classifier",
    file: Path,
    calibration: "Sequence[ImageLike]",
) -> None:
    """Quantize an ONNX model with the ranges that its activations have on calibration images."""
    from resnet_jax.export.onnx import quantize_onnx

    batch = _BATCH if arguments.batch == "dynamic" else arguments.batch
    found = quantize_onnx(
        file,
        arguments.output,
        (
            _input(arguments, classifier, pixels)
            for pixels in _batches(classifier, calibration, batch)
        ),
        overwrite=arguments.overwrite,
    )
    if found.reduce_range:
        print("weights have 7 bits, because sums of 8-bit products saturate on this processor")


def _batches(
    classifier: "Classifier", images: "Sequence[ImageLike]", batch: int
) -> "Iterator[np.ndarray]":
    """Yield batches of prepared images, uint8[batch, H, W, C]; the last one repeats some."""
    import numpy as np

    from resnet_jax.data import DataError

    for start in range(0, len(images), batch):
        try:
            pixels = [
                classifier.preprocessing.on_host(image, max_pixels=classifier.max_pixels)
                for image in images[start : start + batch]
            ]
        except ValueError as error:
            raise DataError(f"a calibration image cannot be read: {error}") from error
        yield np.stack([pixels[i % len(pixels)] for i in range(batch)])


def _print_accuracy(
    arguments: Arguments, classifier: "Classifier", predict: "Predict", data: "LabeledImages"
) -> None:
    """Print the share of images that the network and the export classify correctly."""
    import numpy as np

    from resnet_jax.commands.evaluation_data import evaluation_errors, progress_bar
    from resnet_jax.export.accuracy import accuracy

    def before(pixels: "np.ndarray") -> "np.ndarray":
        return np.asarray(classifier.forward(pixels).logits)

    def after(pixels: "np.ndarray") -> "np.ndarray":
        return predict(_input(arguments, classifier, pixels))

    found = []
    batch = _BATCH if arguments.batch == "dynamic" else arguments.batch
    total = min(len(data), arguments.images)
    for name, function in (("before", before), ("after", after)):
        with evaluation_errors(), progress_bar(f"top-1 {name}", total) as advance:
            found.append(
                accuracy(
                    function,
                    classifier,
                    data,
                    batch=batch,
                    most=arguments.images,
                    progress=advance,
                )
            )
    print(
        f"top-1 on {data.name} {data.split}, {found[0].images} images: "
        f"{100 * found[0].top1:.2f} % before, {100 * found[1].top1:.2f} % with int8"
    )


def _input(arguments: Arguments, classifier: "Classifier", pixels: "np.ndarray") -> "np.ndarray":
    """Return what the export takes for images uint8[B, H, W, C]."""
    import numpy as np

    if arguments.input == "uint8":
        return pixels
    return np.asarray(classifier.preprocessing.on_device(pixels))


def _compare(arguments: Arguments, classifier: "Classifier", predict: "Predict") -> int:
    """Compare the export with the network on two images of noise, and return the exit code."""
    import jax.numpy as jnp
    import numpy as np

    from resnet_jax.inference.measures import softmax

    preprocessing = classifier.preprocessing
    count = 2 if arguments.batch == "dynamic" else arguments.batch
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, *preprocessing.image_shape), np.uint8)
    expected = classifier.probabilities(np.asarray(classifier.forward(pixels).logits))
    found = predict(_input(arguments, classifier, pixels))
    if arguments.format == "safetensors":
        found = classifier.probabilities(found)
    elif arguments.returns == "logits":
        found = softmax(found / np.float32(classifier.calibration.temperature))
    difference = float(np.max(np.abs(found - expected)))
    print(f"largest difference of a probability on noise: {difference:.1e}")
    exact = not arguments.int8 and classifier.model.dtype == jnp.float32
    if exact and not difference <= _TOLERANCE:
        print(
            f"error: the export does not compute what {arguments.run} does; please report this",
            file=sys.stderr,
        )
        return 1
    return 0
