"""The addresses of a server, and what it answers."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import resnet_jax
from resnet_jax.inference.explanation import class_index
from resnet_jax.serving import protocol
from resnet_jax.serving.access import AccessLog, RequireToken, answer_refusal
from resnet_jax.serving.images import read_images
from resnet_jax.serving.limits import Limits, answering, limited, receiving
from resnet_jax.serving.metrics import CONTENT_TYPE_LATEST
from resnet_jax.serving.model import Model
from resnet_jax.serving.page import content_security_policy, render_page
from resnet_jax.serving.service import Service

_LIVE, _READY = "/v2/health/live", "/v2/health/ready"


def create_app(
    model: Model,
    limits: Limits = Limits(),
    *,
    max_batch: int = 16,
    max_delay: float = 0.005,
    token: str | None = None,
    origins: Sequence[str] = (),
    on_ready: Callable[[], None] = lambda: None,
    on_failure: Callable[[Exception], None] = lambda _: None,
) -> Starlette:
    """Return a web application that classifies and explains images.

    The programs are compiled when the application starts. Until then ``/v2/health/ready`` and all
    requests with images are answered with 503.

    Args:
        model: The network.
        limits: What a request may cost.
        max_batch: Largest number of images that the network computes at once.
        max_delay: Longest time in seconds for which an image waits for others, if the network is
            idle.
        token: Token that requests must have, see `RequireToken`. None lets everyone in. The page
            and the addresses of health are always public.
        origins: Origins of other web pages that may use the server, such as
            ``"https://example.org"``. Browsers refuse them otherwise.
        on_ready: Called when all programs are compiled.
        on_failure: Called with the error if they cannot be compiled.
    """
    service = Service(model, limits, max_batch=max_batch, max_delay=max_delay)
    endpoints = _Endpoints(service, requires_token=token is not None)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        async with service.running(on_ready, on_failure):
            yield

    middleware = [Middleware(AccessLog, metrics=service.metrics)]
    if origins:
        headers = ["Authorization", "Content-Type", protocol.LENGTH_HEADER]
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["GET", "POST"],
                allow_headers=headers,
            )
        )
    if token is not None:
        middleware.append(Middleware(RequireToken, token=token, public=("/", _LIVE, _READY)))
    app = Starlette(
        routes=endpoints.routes(),
        middleware=middleware,
        exception_handlers={HTTPException: answer_refusal},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Endpoints:
    """Functions from requests to answers."""

    def __init__(self, service: Service, *, requires_token: bool) -> None:
        self._service, self._model, self._limits = service, service.model, service.limits
        self._page = render_page(self._model, self._limits, requires_token=requires_token)
        self._page_headers = {
            "Content-Security-Policy": content_security_policy(self._page),
            "Referrer-Policy": "no-referrer",
        }

    def routes(self) -> list[Route]:
        """Return the address of each function."""
        model = "/v2/models/{name}"
        get = {
            "/": self.page,
            "/model": self.model,
            "/metrics": self.metrics,
            "/v2": self.server_metadata,
            _LIVE: self.live,
            _READY: self.ready,
        }
        post = {"/predict": self.predict, "/explain": self.explain}
        for prefix in (model, f"{model}/versions/{{version}}"):
            get |= {prefix: self.model_metadata, f"{prefix}/ready": self.model_ready}
            post |= {f"{prefix}/infer": self.infer}
        return [
            *(Route(path, function, methods=["GET"]) for path, function in get.items()),
            *(Route(path, function, methods=["POST"]) for path, function in post.items()),
        ]

    async def page(self, request: Request) -> Response:  # noqa: ARG002
        """Answer with the page."""
        return HTMLResponse(self._page, headers=self._page_headers)

    async def model(self, request: Request) -> Response:  # noqa: ARG002
        """Describe the network: its classes, and how images are prepared."""
        return JSONResponse(
            {
                "name": self._model.name,
                "platform": self._model.platform,
                "class_names": self._model.class_names,
                "preprocessing": self._model.preprocessing.to_json(),
            }
        )

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """Answer with the numbers for Prometheus."""
        text = self._service.metrics.text()
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def predict(self, request: Request) -> Response:
        """Answer with the most probable classes of the images of a request."""
        top = _top(request)
        with contextlib.ExitStack() as admitted:
            self._admit(admitted, 1)
            async with receiving(self._limits):
                files = await read_images(request, self._limits)
            self._admit(admitted, len(files) - 1)
            async with answering(self._limits):
                rows = await self._service.predict(files)
        images = [
            {"file": file.name, "predictions": self._ranked(row, top)}
            for file, row in zip(files, rows, strict=True)
        ]
        return JSONResponse({"model": self._model.name, "images": images})

    async def explain(self, request: Request) -> Response:
        """Answer with the classes of an image, and with the image and its heatmap."""
        if self._model.heat is None:
            raise HTTPException(
                404,
                "an exported network has no gradients; serve the run to explain its predictions",
            )
        top, target = _top(request), self._target(request)
        with contextlib.ExitStack() as admitted:
            self._admit(admitted, 1)
            async with receiving(self._limits):
                files = await read_images(request, self._limits)
            if len(files) > 1:
                raise HTTPException(400, "send one image at a time to be explained")
            async with answering(self._limits):
                found = await self._service.explain(files[0], target)
        if request.headers.get("accept", "").startswith("image/"):
            return Response(found.overlay, media_type="image/jpeg")
        overlay = base64.b64encode(found.overlay).decode()
        return JSONResponse(
            {
                "model": self._model.name,
                "file": files[0].name,
                "predictions": self._ranked(found.probabilities, top),
                "explained": self._prediction(found.probabilities, found.class_index),
                "overlay": f"data:image/jpeg;base64,{overlay}",
            }
        )

    async def server_metadata(self, request: Request) -> Response:  # noqa: ARG002
        """Describe the server."""
        return JSONResponse(
            {
                "name": "resnet_jax",
                "version": resnet_jax.__version__,
                "extensions": protocol.EXTENSIONS,
            }
        )

    async def live(self, request: Request) -> Response:  # noqa: ARG002
        """Answer that the server is there."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """Answer whether the server can predict."""
        self._service.check_ready()
        return JSONResponse({"ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """Describe the tensors of the network."""
        self._check_name(request)
        tensors = protocol.metadata(
            self._model.preprocessing.image_shape, len(self._model.class_names)
        )
        return JSONResponse(
            {
                "name": self._model.name,
                "versions": ["1"],
                "platform": self._model.platform,
                **tensors,
            }
        )

    async def model_ready(self, request: Request) -> Response:
        """Answer whether the network can predict."""
        self._check_name(request)
        self._service.check_ready()
        return JSONResponse({"name": self._model.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """Answer with the probabilities of a tensor of images."""
        self._check_name(request)
        with contextlib.ExitStack() as admitted:
            self._admit(admitted, 1)
            async with receiving(self._limits):
                body = await limited(request, self._limits).body()
            wanted = await asyncio.to_thread(
                protocol.parse,
                body,
                request.headers.get(protocol.LENGTH_HEADER),
                self._model.preprocessing.image_shape,
                self._limits.images,
            )
            self._admit(admitted, len(wanted.images) - 1)
            async with answering(self._limits):
                rows = await self._service.probabilities(list(wanted.images))
        content, headers = protocol.answer(wanted, self._model.name, rows, self._model.class_names)
        return Response(content, headers=headers)

    def _admit(self, admitted: contextlib.ExitStack, images: int) -> None:
        self._service.check_ready()
        admitted.enter_context(self._service.admission.admit(images))

    def _check_name(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", "1")
        if (name, version) != (self._model.name, "1"):
            raise HTTPException(404, f"there is only the model {self._model.name!r}, version 1")

    def _target(self, request: Request) -> int | None:
        """Return the class that a request asks to explain."""
        target = request.query_params.get("target")
        if target is None:
            return None
        names = self._model.class_names
        is_name = target in names or not (target.isascii() and target.isdigit())
        try:
            return class_index(names, target if is_name else int(target))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

    def _ranked(self, row: np.ndarray, top: int) -> list[dict[str, Any]]:
        """Return the most probable classes, the most probable first."""
        order = np.argsort(-row, kind="stable")[:top]
        return list(map(partial(self._prediction, row), map(int, order)))

    def _prediction(self, row: np.ndarray, index: int) -> dict[str, Any]:
        return {
            "class_name": self._model.class_names[index],
            "class_index": index,
            "probability": float(row[index]),
        }


def _top(request: Request) -> int:
    """Return the number of classes that a request asks for."""
    text = request.query_params.get("top", "5")
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text) > 0):
        raise HTTPException(400, "top must be a whole number, at least 1")
    return int(text)
