"""Downloading weights and their descriptions from the Hugging Face hub."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

_REFERENCE = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of the file of weights in a repository; the first one that exists is read.

An index names the files that the weights are divided into.
"""

_ANSWER_WITHIN_S = 5.0

_logger = logging.getLogger(__name__)


def fetch(reference: str) -> Path:
    """Return the path of a repository's weight file, downloading it if it is not in the cache.

    The usual environment variables of the hub apply: ``HF_ENDPOINT`` (address of the hub),
    ``HF_HOME`` (place of the cache), ``HF_TOKEN``, ``HF_HUB_OFFLINE`` (use the cache only) and
    ``HF_HUB_ETAG_TIMEOUT`` (seconds to wait for an answer, 5 if it is not set).

    If the hub does not answer in that time, the file comes from the cache.

    Args:
        reference: ``hf://owner/repository``, such as ``hf://timm/resnet50.a1_in1k``, with
            ``@revision`` appended to select a branch, tag or commit.

    Returns:
        The path of ``model.safetensors`` or, if the repository has none, ``pytorch_model.bin``; or
        of the index of either, beside all files that the index names.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: The reference is malformed, the repository, revision or file does not exist, or
            the hub cannot be reached and the file is not in the cache.  The message is one line.
    """
    path = fetch_first(reference, WEIGHT_FILES)
    if path is None:
        raise ValueError(
            f"{reference}: neither {WEIGHT_FILES[0]} nor {WEIGHT_FILES[2]} is in the repository"
        )
    return path


def fetch_first(reference: str, names: Sequence[str]) -> Path | None:
    """Return the path of the first of some files that a repository has, or None if it has none.

    Args:
        reference: The repository, see `fetch`.
        names: Names of files in the repository.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: The reference is malformed, the repository or revision does not exist, or
            the hub cannot be reached and none of the files is in the cache.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ValueError(f"{reference!r} is not of the form hf://owner/repository[@revision]")
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise ImportError(
            f"{reference} needs the package huggingface_hub: pip install 'resnet-linen[weights]'"
        ) from None

    repository, revision = match["repository"], match["revision"]
    for name in names:
        try:
            _ask(repository, name, revision)
        except errors.RepositoryNotFoundError:
            raise ValueError(
                f"{reference}: the hub has no such repository, or it is private or gated and needs "
                "HF_TOKEN; check the spelling"
            ) from None
        except errors.RevisionNotFoundError:
            raise ValueError(f"{reference}: the repository has no such revision") from None
        except errors.EntryNotFoundError:
            continue
        except errors.HFValidationError as error:
            raise ValueError(f"{reference}: {str(error).splitlines()[0]}") from None
        # The network errors belong to an HTTP library that differs between versions of the hub's
        # package, so they cannot be named here.
        except Exception as error:
            return _from_cache(reference, repository, revision, names, error)
        try:
            path = Path(hf_hub_download(repository, name, revision=revision))
            if name.endswith(".index.json"):
                # Imported here, because few repositories have an index.
                from resnet_jax.weights.formats.shards import read_index

                for file in set(read_index(path).values()):
                    # All files are in the directory of their commit.
                    hf_hub_download(repository, file, revision=path.parent.name)
            return path
        except errors.LocalEntryNotFoundError as error:  # The connection broke just now.
            return _from_cache(reference, repository, revision, names, error)
    return None


def weight_file(directory: Path) -> Path | None:
    """Return the weight file of a repository that was cloned or downloaded, or None."""
    return next((file for name in WEIGHT_FILES if (file := directory / name).is_file()), None)


def _ask(repository: str, name: str, revision: str | None) -> None:
    """Ask the hub once whether a file exists, and raise an error if it does not or is silent.

    `hf_hub_download` retries for 51 s before it gives up on a hub that cannot be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _ANSWER_WITHIN_S)
    url = hf_hub_url(repository, name, revision=revision)
    _call_within(seconds, lambda: get_hf_file_metadata(url, timeout=seconds))


def _call_within(seconds: float, function: Callable[[], object]) -> None:
    """Call a function, and raise `TimeoutError` if it takes longer than the given seconds.

    A timeout of the HTTP library holds for each address of the host in turn, and not for the
    look-up of its name, so a blocked network would take a multiple of it.  The function runs in a
    thread, which is abandoned after that time.
    """
    raised: list[Exception] = []

    def run() -> None:
        try:
            function()
        except Exception as error:  # Raised again by the caller.
            raised.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")


def _from_cache(
    reference: str, repository: str, revision: str | None, names: Sequence[str], error: Exception
) -> Path:
    """Return the cached file, or explain that the hub cannot be reached."""
    from huggingface_hub import constants, errors, try_to_load_from_cache

    cause = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    for name in names:
        path = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(path, str):
            _logger.info("%s: the hub cannot be reached (%s); using the cache", reference, cause)
            return Path(path)
    cache = constants.HF_HUB_CACHE
    missing = "the weights are" if names == WEIGHT_FILES else f"{' or '.join(names)} is"
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"{reference}: HF_HUB_OFFLINE is set and {missing} not in the cache {cache}; "
            "unset it to download them, or give the path of a weight file"
        ) from None
    answered = isinstance(error, errors.HfHubHTTPError)
    problem = "answers with an error" if answered else "cannot be reached"
    raise ValueError(
        f"{reference}: the hub {constants.ENDPOINT} {problem} ({cause}) and {missing} "
        f"not in the cache {cache}; check the network and HF_ENDPOINT, or download them "
        "elsewhere and give the path of the file"
    ) from None
