"""Weights from the Hugging Face hub."""

import re
from pathlib import Path

_REFERENCE = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetch(reference: str) -> Path:
    """Downloads the weights of a repository, or finds them in the cache.

    The environment decides where from and where to, as for every user of the hub: ``HF_ENDPOINT``,
    ``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``.

    Args:
        reference: ``hf://owner/repository``, with ``@revision`` where it is not the newest, such as
            ``hf://timm/resnet50.a1_in1k``.

    Returns:
        The path of ``model.safetensors``, or of ``pytorch_model.bin`` where that is all there is.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: the reference is malformed, or there are no such weights; in one line.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ValueError(f"{reference!r} is not of the form hf://owner/repository[@revision]")
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise ImportError(
            "weights from the hub need huggingface_hub: pip install 'resnet_jax[weights]'"
        ) from None

    names = ("model.safetensors", "pytorch_model.bin")
    for name in names:
        try:
            return Path(hf_hub_download(match["repository"], name, revision=match["revision"]))
        except errors.LocalEntryNotFoundError:
            # Offline, it is unknown which of the files the repository has.
            continue
        except errors.RepositoryNotFoundError:
            raise ValueError(
                f"{reference}: the hub has no such repository, or it is private"
            ) from None
        except errors.RevisionNotFoundError:
            raise ValueError(f"{reference}: the repository has no such revision") from None
        except errors.EntryNotFoundError:
            continue
        except errors.HFValidationError as error:
            raise ValueError(f"{reference}: {str(error).splitlines()[0]}") from None
    raise ValueError(
        f"{reference}: neither {' nor '.join(names)} is in the repository, or the hub cannot be "
        "reached and they are not in the cache"
    )
