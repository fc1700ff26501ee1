"""Attention pictures: the heat is where the weights are, and every word has its tile."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from captioner.attention import GAP, PAPER, TILE, draw_attention, heat_map, overlay


def one_hot(row: int, column: int, shape: tuple[int, int] = (7, 7)) -> np.ndarray:
    weights = np.zeros(shape, dtype=np.float32)
    weights[row, column] = 1
    return weights


def caption(*tokens: str, shape: tuple[int, int] = (7, 7)) -> SimpleNamespace:
    attention = np.random.default_rng(0).dirichlet(np.ones(np.prod(shape)), len(tokens)).reshape(-1, *shape)
    return SimpleNamespace(tokens=tokens, text=" ".join(tokens), attention=attention)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (6, 3)])
def test_heat_peaks_where_the_weight_is(row: int, column: int) -> None:
    heat = heat_map(one_hot(row, column), size=(140, 70))
    assert heat.shape == (70, 140)
    assert (heat.min(), heat.max()) == (0, 1)
    peak = np.unravel_index(heat.argmax(), heat.shape)
    assert (peak[0] // 10, peak[1] // 20) == (row, column)


def test_heat_is_smooth_and_ignores_scale() -> None:
    weights = np.random.default_rng(1).random((5, 6))
    heat = heat_map(weights, size=(120, 100))
    assert np.abs(np.diff(heat, axis=1)).max() < 0.15
    np.testing.assert_allclose(heat, heat_map(weights * 1e-4, size=(120, 100)), atol=1e-3)


def test_even_weights_highlight_nothing() -> None:
    assert not heat_map(np.full((7, 7), 1 / 49), size=(50, 50)).any()


def test_weights_of_all_steps_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(rows, columns\), not \(3, 7, 7\)"):
        heat_map(np.zeros((3, 7, 7)), size=(10, 10))


def test_overlay_lights_what_is_attended_and_shades_the_rest() -> None:
    grey = Image.new("L", (70, 70), 128)
    result = overlay(grey, one_hot(1, 5))
    assert (result.mode, result.size) == ("RGB", (70, 70))
    values = np.asarray(result).astype(int)
    assert values[15, 55, 0] > 200
    assert values[60, 10].max() < 115
    np.testing.assert_array_equal(np.asarray(overlay(grey, one_hot(1, 5), opacity=0)), 128)


def test_the_sheet_shows_the_picture_then_a_tile_for_each_word() -> None:
    picture = Image.new("RGB", (40, 20), (0, 90, 200))
    words = caption("a", "dog", "runs")
    words.attention = np.stack([one_hot(3, 0), one_hot(3, 3), one_hot(3, 6)])
    sheet = np.asarray(draw_attention(picture, words)).astype(int)
    height = TILE // 2

    def rows_of(column: int) -> np.ndarray:
        left = GAP + column % 3 * (TILE + GAP)
        return sheet[:, left : left + TILE]

    tops = [
        row for row in range(1, len(sheet)) if (sheet[row, GAP] != PAPER).any() and (sheet[row - 1, GAP] == PAPER).all()
    ]
    first, second = tops[-2:]  # above them there may be ink of the caption
    assert (rows_of(0)[first : first + height] == (0, 90, 200)).all()
    for number, (column, top) in enumerate([(1, first), (2, first), (0, second)]):
        tile = rows_of(column)[top : top + height]
        assert tile[height // 2].sum(-1).argmax() * 7 // TILE == number * 3
        label = rows_of(column)[top + height : top + height + GAP + 20]
        assert label.min() < 100
    assert sheet[:first].min() < 100  # the caption
    assert (sheet[-1] == PAPER).all()


@pytest.mark.parametrize(
    "tokens",
    [
        (),
        ("dog",),
        ("\u0283\u0254", "\u72ac", "\u05db\u05dc\u05d1", "\U0001f415", "e\u0301", "\u202edog"),
        ("", " ", "two\nlines", "tab\there", "x" * 400),
        tuple("phones" * 19),
    ],
    ids=["empty", "one", "unicode", "odd", "long"],
)
def test_any_words_can_be_drawn(tokens: tuple[str, ...]) -> None:
    sheet = draw_attention(Image.new("RGB", (30, 20)), caption(*tokens))
    assert sheet.mode == "RGB"
    assert sheet.width >= TILE


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)])
def test_any_aspect_ratio_can_be_drawn(size: tuple[int, int]) -> None:
    assert draw_attention(Image.new("RGB", size), caption("a", "dog", shape=(2, 3))).width >= TILE


def test_attention_must_match_the_words() -> None:
    words = caption("a", "dog")
    words.attention = words.attention[:1]
    with pytest.raises(ValueError, match="shorter"):
        draw_attention(Image.new("RGB", (8, 8)), words)
