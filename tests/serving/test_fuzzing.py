"""No request makes the server fail. `tests/nightly/fuzz_server.py` tries many more."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from tests.serving.requests import check, requests
from tests.serving.stub import MODEL


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(request=requests(MODEL.name, MODEL.preprocessing.image_shape))
def test_every_request_has_an_intended_answer(
    client: TestClient, request: tuple[str, str, dict[str, Any]]
) -> None:
    check(client, request)
