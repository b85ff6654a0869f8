"""The log of requests, and the middleware around all of them."""

import datetime
import hmac
import json
import logging
import secrets
import time
from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_jax.serving.metrics import Metrics

logger = logging.getLogger("resnet_jax.serving")

# Status in the log and in the metrics of a request whose client has left, as in nginx.
_CLIENT_LEFT = 499


class JsonFormatter(logging.Formatter):
    """Log records as one line of JSON each: time, level, message, and what the record adds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class AccessLog:
    """Log and count every request, and answer what fails unexpectedly without a trace.

    Each request gets a number, which is in the log and in the header ``X-Request-Id`` of the
    answer.

    Args:
        app: The application.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity, start = secrets.token_hex(8), time.perf_counter()
        headers = [(b"x-request-id", identity.encode()), (b"x-content-type-options", b"nosniff")]
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except Exception:
            logger.exception("a request failed", extra={"fields": {"request": identity}})
            if not status:
                await error_response(500, "the server has failed")(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - start
            self._metrics.observe_request(_endpoint(scope), status or _CLIENT_LEFT, seconds)
            client = scope.get("client")
            fields = {
                "request": identity,
                "client": client[0] if client else None,
                "method": scope["method"],
                "path": scope["path"],
                "status": status or _CLIENT_LEFT,
                "seconds": round(seconds, 4),
            }
            logger.info("request", extra={"fields": fields})


class RequireToken:
    """Answer only requests with a token in the header ``Authorization: Bearer TOKEN``.

    Args:
        app: The application.
        token: The token.
        public: Paths that need no token.
    """

    def __init__(self, app: ASGIApp, token: str, public: Collection[str]) -> None:
        self._app, self._public = app, frozenset(public)
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["path"] not in self._public:
            given = dict(scope["headers"]).get(b"authorization", b"")
            kind, _, token = given.partition(b" ")
            # The time that the comparison takes does not depend on how much of the token is right.
            if kind.lower() != b"bearer" or not hmac.compare_digest(token, self._token):
                refusal = error_response(401, "the token is missing or wrong")
                refusal.headers["WWW-Authenticate"] = "Bearer"
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def error_response(status: int, reason: str) -> JSONResponse:
    """Return an answer in the format of the Open Inference Protocol for errors."""
    return JSONResponse({"error": reason}, status)


async def answer_refusal(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Return the answer for an `HTTPException`."""
    assert isinstance(error, HTTPException)
    response = error_response(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


def _endpoint(scope: Scope) -> str:
    """Return the name of the function that has answered, so that there are few of them."""
    return getattr(scope.get("endpoint"), "__name__", "none")
