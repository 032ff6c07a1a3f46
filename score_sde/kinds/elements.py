"""Elements of pages: an image within the HTML."""

import base64
from html import escape


def image(kind: str, content: bytes, text: str) -> str:
    """An image of a kind ("png", "svg+xml") within the page; ``text`` says what is on it."""
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'
