"""Which optional dependencies a command needs, and how they are installed."""

DISTRIBUTION = "resnet-linen"
"""Name of this library on the Python Package Index, where `resnet-jax` is another project."""

EXTRAS = {
    "train": ("jinja2", "optax", "orbax", "sklearn", "tensorboardX"),
    "data": (
        "array_record",
        "cv2",
        "etils",
        "fsspec",
        "google_crc32c",
        "grain",
        "importlib_resources",
        "scipy",
        "simplejpeg",
        "tensorflow_datasets",
    ),
    "export": ("flatbuffers", "onnx", "onnxruntime"),
    "predict": ("aiohttp", "pyarrow"),
    "serve": ("prometheus_client", "python_multipart", "starlette", "uvicorn"),
    "weights": ("huggingface_hub", "safetensors"),
}
"""The modules that each extra brings and that a plain installation may lack."""


def how_to_install(error: ModuleNotFoundError) -> str | None:
    """Return which extra to install for a module that is missing, or None if there is none."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return (
                f"this needs {module}, which is not installed: "
                f"pip install '{DISTRIBUTION}[{extra}]'"
            )
    return None
