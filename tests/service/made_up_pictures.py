"""What schemathesis takes for pictures: it would never come upon one by itself."""

from __future__ import annotations

import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _png(size: int) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").resize((size, size)).save(file, "PNG")
    return file.getvalue()


pictures = st.sampled_from([_png(8), _png(30)])
files = st.one_of(pictures, pictures.map(lambda file: file[:-20]), st.binary(max_size=20))
schemathesis.openapi.media_type("image/*", files)
schemathesis.openapi.format("binary", files)
schemathesis.openapi.format("byte", files.map(lambda file: base64.b64encode(file).decode()))
