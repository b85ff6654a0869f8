"""A client of an application that knows colors, and a browser."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.report.conftest import browser as browser
from tests.serving.stub import serving


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client
