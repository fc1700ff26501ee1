"""Large JPEGs decoded at a half, a quarter or an eighth of their size, since they are to be shrunk anyway.

JPEG stores blocks of 8 x 8 pixels as frequencies, and libjpeg can make 4 x 4, 2 x 2 or 1 pixel of each. That leaves out
work instead of undoing it: a picture of 4000 x 3000 reaches 224 x 224 four times as fast, in a sixteenth of the memory.
"""

from __future__ import annotations

from PIL import Image, JpegImagePlugin

Box = tuple[float, float, float, float]  # left, top, right and bottom in pixels

KEPT = 2  # a draft has at least so many times the pixels a side that the result will have

# Operation -> whether it mirrors left and right, mirrors top and bottom, and then exchanges rows and columns.
STEPS = {
    Image.Transpose.FLIP_LEFT_RIGHT: (True, False, False),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, True, False),
    Image.Transpose.ROTATE_180: (True, True, False),
    Image.Transpose.TRANSPOSE: (False, False, True),
    Image.Transpose.ROTATE_90: (True, False, True),
    Image.Transpose.ROTATE_270: (False, True, True),
    Image.Transpose.TRANSVERSE: (True, True, True),
}


def draft(image: Image.Image, side: int) -> Box:
    """Have an opened picture decoded smaller, if it is a JPEG so large that the result will hardly show it.

    The mode stays, and everything is read, only less is computed. A lossless JPEG has no draft: it then fails to load,
    as a damaged one does, and has to be opened anew. What is shrunk from the draft to
    ``side`` pixels a side, as :func:`captioner.images.load_rgb` does, differs from what is shrunk from the whole
    picture, in steps of 8 bits, by a mean of at most 0.75 and by no more than 24 where the picture is a photograph, by
    4 and 32 where each pixel is noise of its own; the larger the picture, the less. Saving it as a JPEG of quality 90
    changed it more. With ``KEPT`` 1 it would be thrice as much; 3 would halve it, but leave the usual sizes, such as
    1600 x 1200, at half the speed.

    Args:
        image: as it was opened, its pixels not decoded yet; its size changes.
        side: how many pixels the result will have across or down, whichever are more.

    Returns:
        The part of the decoded picture that the picture fills: its last column or row may reach over the edge.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        drafted = image.draft(None, (KEPT * side, KEPT * side))
        if drafted is not None:
            return drafted[1]
    return whole(image)


def whole(image: Image.Image) -> Box:
    """All of a picture."""
    return (0.0, 0.0, float(image.width), float(image.height))


def turned(box: Box, size: tuple[int, int], operation: Image.Transpose) -> Box:
    """Where a box lies after a picture of ``size`` (width, height) has been transposed."""
    left, top, right, bottom = box
    mirror_columns, mirror_rows, exchange = STEPS[operation]
    if mirror_columns:
        left, right = size[0] - right, size[0] - left
    if mirror_rows:
        top, bottom = size[1] - bottom, size[1] - top
    return (top, left, bottom, right) if exchange else (left, top, right, bottom)
