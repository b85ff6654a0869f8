"""What a request may cost: bytes, pixels, images and seconds."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

# Seconds after which a client may try again, if the server has too much to do.
_RETRY_AFTER = 1


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits that hold for every request.

    The memory for requests is at most ``waiting`` times ``body_bytes``, plus 3 bytes for each of
    ``pixels`` and each processor core.

    Attributes:
        body_bytes: Largest size of the body of a request in bytes.
        pixels: Largest number of pixels of an image. A small file can announce so many that the
            memory does not suffice.
        images: Largest number of images in a request.
        waiting: Largest number of images in all requests that have not been answered.
        seconds: Longest time for receiving the body of a request, and again for answering it.

    Raises:
        ValueError: A limit is not positive, or a request may have more images than may wait.
    """

    body_bytes: int = 16 * 2**20
    pixels: int = 50_000_000
    images: int = 16
    waiting: int = 64
    seconds: float = 15.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, but it is {value}")
        if self.images > self.waiting:
            raise ValueError(
                f"a request may have {self.images} images, but only {self.waiting} may wait"
            )


class Admission:
    """Count of the images in requests that have not been answered.

    Args:
        limit: Largest count. Requests above it are refused at once, so that the answers to the
            others do not take longer and longer.

    Attributes:
        count: The number of images now.
    """

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit

    @contextlib.contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Count some images until the block ends.

        Raises:
            HTTPException: There would be too many (status 503).
        """
        if self.count + images > self._limit:
            raise busy("too many images are waiting")
        self.count += images
        try:
            yield
        finally:
            self.count -= images


def busy(reason: str) -> HTTPException:
    """Return the answer of a server that can do later what it cannot do now."""
    return HTTPException(503, f"{reason}; try again later", {"Retry-After": str(_RETRY_AFTER)})


def limited(request: Request, limits: Limits) -> Request:
    """Return a request whose body cannot be larger than allowed.

    The announced length is checked here, before anything is read, and the bytes are counted while
    they are received.

    Raises:
        HTTPException: The body is compressed (status 415), its announced length is too large (413)
            or no number (400). Reading the body of the result raises the same for a body that is
            larger than announced.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "the body is compressed; send it without Content-Encoding")
    too_large = HTTPException(413, f"the body is larger than {limits.body_bytes:,} bytes")
    announced = request.headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit()):
        raise HTTPException(400, "Content-Length is not a number")
    if len(announced) > 18 or int(announced) > limits.body_bytes:
        raise too_large
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limits.body_bytes:
            raise too_large
        return message

    return Request(request.scope, receive)


@contextlib.asynccontextmanager
async def receiving(limits: Limits) -> AsyncIterator[None]:
    """Block that must receive a request in time.

    Raises:
        HTTPException: It takes too long (status 408). The connection is then closed.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            yield
    except TimeoutError:
        reason = f"the body did not arrive within {limits.seconds:g} seconds"
        raise HTTPException(408, reason, {"Connection": "close"}) from None


@contextlib.asynccontextmanager
async def answering(limits: Limits) -> AsyncIterator[None]:
    """Block that must answer a request in time.

    Raises:
        HTTPException: It takes too long (status 503).
    """
    try:
        async with asyncio.timeout(limits.seconds):
            yield
    except TimeoutError:
        raise busy(f"there was no answer within {limits.seconds:g} seconds") from None
