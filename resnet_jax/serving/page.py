"""The page on which images can be dropped, and the policy that protects it."""

import base64
import hashlib
import re

from resnet_jax.report.page import create_environment
from resnet_jax.serving.limits import Limits
from resnet_jax.serving.model import Model


def render_page(model: Model, limits: Limits, *, requires_token: bool) -> str:
    """Return the page as HTML.

    Args:
        model: The network.
        limits: What a request may cost.
        requires_token: Whether the page asks for a token.
    """
    environment = create_environment("resnet_jax.serving", "resnet_jax.report")
    return environment.get_template("serve.html.jinja").render(
        model=model, limits=limits, requires_token=requires_token
    )


def content_security_policy(page: str) -> str:
    """Return a policy that allows the scripts and the styles of a page, and nothing else.

    Args:
        page: HTML whose scripts and styles are inline.
    """
    hashes = {
        tag: " ".join(map(_hash, re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)))
        for tag in ("script", "style")
    }
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {hashes['script']}",
            f"style-src {hashes['style']}",
            "img-src blob: data:",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
