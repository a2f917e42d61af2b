"""Drawing a text so that people read it and simple programs don't."""

from __future__ import annotations

from captcha.image import ImageCaptcha

MEDIA_TYPE = "image/jpeg"
_WIDTH, _HEIGHT = 240, 80
# The library's own colours, by chance, may come close to each other. It pastes letters as strongly as they are bright,
# so that a darker ink would be fainter.
_INK = (70, 120, 170, 255)
_PAPER = (245, 245, 240)


def draw(text: str) -> bytes:
    """The text, bent and speckled, as JPEG of 240 by 80 pixels."""
    return ImageCaptcha(_WIDTH, _HEIGHT).generate(text, "jpeg", _PAPER, _INK).getvalue()
