"""Attention weights -> heat maps, overlays and a sheet that shows where the model looked for each word."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from captioner.results import Caption

# Cold to hot. Evenly spaced and ever lighter, so the order survives grey print and colour blindness.
HEAT_COLOURS = np.array([(18, 12, 60), (92, 22, 118), (190, 48, 90), (244, 122, 38), (255, 226, 110)], dtype=np.float32)

TILE = 220  # longest side of a picture on the sheet, in pixels
GAP = 14
LABEL_SIZE = 20
TITLE_SIZE = 26
PAPER, INK = (255, 255, 255), (28, 28, 32)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def heat_map(weights: NDArray[np.floating], *, size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge one step's attention smoothly and spread it over 0..1.

    Args:
        weights: ``(rows, columns)``, any scale.
        size: ``(width, height)`` in pixels.

    Returns:
        ``(height, width)`` float32; the least attended pixel is 0, the most attended 1. Even weights give zeros:
        nothing stands out.

    Raises:
        ValueError: ``weights`` is not two-dimensional.
    """
    weights = np.asarray(weights, dtype=np.float32)
    if weights.ndim != 2:
        raise ValueError(f"weights must have shape (rows, columns), not {weights.shape}")
    grid = Image.fromarray(_spread(weights))  # spread before resampling too, or its rounding would pass for a pattern
    return _spread(np.asarray(grid.resize(size, Image.Resampling.BICUBIC)))


def overlay(image: Image.Image, weights: NDArray[np.floating], *, opacity: float = 0.7) -> Image.Image:
    """Lay one step's attention over a picture as colour; unattended areas fall into shade.

    Args:
        image: the picture the model saw.
        weights: ``(rows, columns)``, any scale.
        opacity: of the hottest colour, in 0..1.

    Returns:
        An RGB picture of the same size.
    """
    heat = heat_map(weights, size=image.size)[..., None]  # (H, W, 1)
    stops = np.linspace(0, 1, len(HEAT_COLOURS))
    colour = np.concatenate([np.interp(heat, stops, channel) for channel in HEAT_COLOURS.T], axis=-1)
    picture = np.asarray(image.convert("RGB"), dtype=np.float32)
    # The cold end keeps some opacity: that is the shade.
    alpha = opacity * (0.55 + 0.45 * heat)
    return Image.fromarray(((1 - alpha) * picture + alpha * colour).round().astype(np.uint8))


def draw_attention(image: Image.Image, caption: Caption) -> Image.Image:
    """Draw a contact sheet: the caption, the picture, then for each word where the model looked as it chose it.

    Args:
        image: the picture the model saw, upright.
        caption: its ``tokens`` (T) and ``attention`` (T, rows, columns) must come from that picture.

    Returns:
        An RGB picture with T + 1 tiles in reading order.
    """
    scale = TILE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    thumbnail = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)

    label_font, title_font = ImageFont.load_default(LABEL_SIZE), ImageFont.load_default(TITLE_SIZE)
    tiles = len(caption.tokens) + 1
    columns = min(tiles, max(3, math.ceil(math.sqrt(tiles))))
    rows = math.ceil(tiles / columns)
    cell_width, cell_height = TILE + GAP, height + LABEL_SIZE + 2 * GAP
    sheet_width = columns * cell_width + GAP
    title = _wrap(caption.text, title_font, sheet_width - 2 * GAP)
    title_height = len(title) * round(1.3 * TITLE_SIZE) + GAP

    sheet = Image.new("RGB", (sheet_width, GAP + title_height + rows * cell_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((GAP, GAP + number * round(1.3 * TITLE_SIZE)), line, INK, title_font)

    words = [("", thumbnail)]
    words += [
        (token, overlay(thumbnail, weights)) for token, weights in zip(caption.tokens, caption.attention, strict=True)
    ]
    for number, (word, tile) in enumerate(words):
        row, column = divmod(number, columns)
        left, top = GAP + column * cell_width, GAP + title_height + row * cell_height
        sheet.paste(tile, (left + (TILE - width) // 2, top))
        label = _shorten(word, label_font, TILE)
        draw.text((left + TILE / 2, top + height + GAP // 2), label, INK, label_font, anchor="ma")
    return sheet


def _spread(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines at most ``width`` pixels wide; a word wider than that is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shorten(word, font, width))
    return lines


def _shorten(text: str, font: Font, width: int) -> str:
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
