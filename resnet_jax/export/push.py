"""Upload of a directory to a repository of the Hugging Face hub, in one commit.

The token comes from the places of huggingface_hub: ``HF_TOKEN``, or the file that
``hf auth login`` writes. It is sent to the hub alone, and no message contains it.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_TIMEOUT_S = 30.0
# Statuses of a commit whose parent is no longer the newest one.
_CHANGED = (409, 412)


class PushError(ValueError):
    """Raised if an upload is refused or fails. The message is one line without the token."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an upload would change.

    Attributes:
        repository: The repository, such as ``"user/name"``.
        branch: Name of the branch.
        creates_repository: Whether the repository does not exist yet.
        creates_branch: Whether the branch does not exist yet. It begins where ``main`` is.
        private: Whether the repository is to be private, if it is created.
        parent: The newest commit of the branch, or None.
        new: Names of the files that the repository does not have.
        replaced: Names of the files that the repository has with another content.
        unchanged: Names of the files that it has with the same content.
    """

    repository: str
    branch: str
    creates_repository: bool
    creates_branch: bool
    private: bool
    parent: str | None
    new: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]


def check_name(repository: str) -> str:
    """Return the name of a repository without ``hf://``.

    Raises:
        PushError: The name is not of the form that the hub accepts.
        ImportError: huggingface_hub is not installed.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = repository.removeprefix("hf://")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise PushError(f"{repository}: {_line(error)}") from None
    if name.count("/") != 1:
        raise PushError(f"{repository!r} is not of the form user/name; give the owner and the name")
    return name


def check_token() -> None:
    """Raise `PushError` if there is no token, before any long work."""
    if _token() is None:
        raise PushError(
            "there is no token of the Hugging Face hub; log in with `hf auth login`, or set "
            "HF_TOKEN to a token with write access"
        )


def plan(directory: Path, repository: str, *, branch: str = "main", private: bool = False) -> Plan:
    """Return what the upload of a directory would change. Nothing is changed.

    Args:
        directory: The files, without subdirectories.
        repository: The repository, see `check_name`.
        branch: Name of the branch.
        private: Whether the repository is to be private, if it is created.

    Raises:
        PushError: The hub cannot be reached, refuses the token, or the repository exists and is
            public although it is to be private.
    """
    from huggingface_hub import HfApi, errors

    api = HfApi()
    creates_repository = creates_branch = False

    def ask() -> Any:
        nonlocal creates_repository, creates_branch
        options: dict[str, Any] = {"files_metadata": True, "timeout": _TIMEOUT_S}
        try:
            try:
                return api.model_info(repository, revision=branch, **options)
            except errors.RevisionNotFoundError:
                creates_branch = True
                return api.model_info(repository, **options)
        except errors.RepositoryNotFoundError:
            creates_repository, creates_branch = True, branch != "main"
            return None

    info = _call(ask, repository, "nothing was changed")
    if info is not None and private and not info.private:
        raise PushError(
            f"{repository} exists and is public; leave --private out, make the repository private "
            "in its settings on the hub, or give another name"
        )
    there = {file.rfilename: file for file in (info.siblings or [])} if info else {}
    names = sorted(path.name for path in directory.iterdir())
    unchanged = tuple(
        name for name in names if name in there and _is_equal(directory / name, there[name])
    )
    return Plan(
        repository=repository,
        branch=branch,
        creates_repository=creates_repository,
        creates_branch=creates_branch,
        private=private,
        parent=info.sha if info else None,
        new=tuple(name for name in names if name not in there),
        replaced=tuple(name for name in names if name in there and name not in unchanged),
        unchanged=unchanged,
    )


def push(plan: Plan, directory: Path, message: str) -> str:
    """Upload the files that are new or replaced in one commit, and return its address.

    The repository and the branch are created if they do not exist. If anybody has committed to the
    branch since the plan was made, nothing is committed.

    Args:
        plan: The plan of `plan` for the same directory.
        directory: The files.
        message: First line of the commit.

    Raises:
        PushError: The hub refuses the upload, or the connection is lost. No file of the upload is
            visible then, unless the message says that this is not known.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api, parent = HfApi(), plan.parent
    left = "nothing was uploaded"
    if plan.creates_repository:
        _call(
            lambda: api.create_repo(plan.repository, private=True if plan.private else None),
            plan.repository,
            left,
        )
        left = f"{left}, but the empty repository {plan.repository} was created"
        info = _call(
            lambda: api.model_info(plan.repository, timeout=_TIMEOUT_S), plan.repository, left
        )
        parent = info.sha
    if plan.creates_branch:
        _call(lambda: api.create_branch(plan.repository, branch=plan.branch), plan.repository, left)
    files = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(directory / name))
        for name in (*plan.new, *plan.replaced)
    ]
    # Large files are uploaded first, and are not visible before the commit.
    _call(
        lambda: api.preupload_lfs_files(
            plan.repository, additions=files, revision=plan.branch, free_memory=False
        ),
        plan.repository,
        "nothing was committed; the same command tries again",
        commits=True,
    )
    commit = _call(
        lambda: api.create_commit(
            plan.repository,
            files,
            commit_message=message,
            revision=plan.branch,
            parent_commit=parent,
        ),
        plan.repository,
        "it is not known whether the commit was made; the same command uploads only what is "
        "missing",
        commits=True,
    )
    return commit.commit_url


def _is_equal(path: Path, there: Any) -> bool:
    """Return whether the hub has a file with the same content."""
    if there.lfs is not None:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == there.lfs.sha256
    content = path.read_bytes()
    # Git names a file by this digest. It protects against nothing here.
    digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest() == there.blob_id


def _call(function: Callable[[], T], repository: str, left: str, *, commits: bool = False) -> T:
    """Return what a function returns, and raise `PushError` for every error of the hub.

    The new error has no reference to the one that it explains, which holds the request with the
    token in its headers.

    Args:
        function: Asks the hub.
        repository: The repository, for the message.
        left: What the failure leaves, for the message.
        commits: Whether a conflict means that somebody else has committed.
    """
    # The network errors belong to an HTTP library that differs between versions of the hub's
    # package, so they cannot be named here.
    try:
        return function()
    except Exception as error:
        explanation = _explanation(repository, error, commits)
        if commits and _status(error) in range(400, 500):
            left = "nothing was committed"
    # Raised here and not above, where the error would be kept as the context of the new one.
    token = _token()
    message = f"{repository}: {explanation}; {left}"
    raise PushError(message.replace(token, "***") if token else message)


def _explanation(repository: str, error: Exception, commits: bool) -> str:
    from huggingface_hub.errors import RepositoryNotFoundError

    status = _status(error)
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or does not let you see it"
    if status == 401:
        return (
            "the hub does not accept the token; log in again with `hf auth login`, or set HF_TOKEN "
            "to a token with write access"
        )
    if status == 403:
        owner = repository.partition("/")[0]
        return f"the token may not write to {owner}'s repositories; use one with write access"
    if status in _CHANGED and commits:
        return "somebody has changed the repository in the meantime; look at it and try again"
    if status is not None:
        return f"the hub answers with an error ({_line(error)})"
    if isinstance(error, ValueError):
        return f"the hub does not accept the files ({_line(error)})"
    return f"the connection to the hub failed ({_line(error)})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what has caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _answer(error: Exception) -> BaseException | None:
    """Return the error that holds the hub's answer, or None if there was no answer."""
    return next((one for one in _chain(error) if getattr(one, "response", None) is not None), None)


def _status(error: Exception) -> int | None:
    """Return the HTTP status that has caused an error, or None if there was no answer."""
    answer: Any = _answer(error)
    return None if answer is None else answer.response.status_code


def _line(error: Exception) -> str:
    """Return the hub's answer, or else the first cause of an error, on one line and shortened."""
    *_, cause = _chain(error)
    shown = _answer(error) or cause
    return " ".join(f"{type(shown).__name__}: {shown}".split())[:200]


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()
