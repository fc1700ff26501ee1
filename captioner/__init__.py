"""Image to sequence: a convolutional grid, an attending LSTM, a caption.

>>> import captioner
>>> model = captioner.load("words")
>>> caption = model("dog.jpg", beam_size=3)
>>> caption.text
"""

from captioner.captioner import Captioner
from captioner.decoding import DecodingOptions
from captioner.errors import (
    CaptionerError,
    DataError,
    DependencyError,
    ImageError,
    ModelError,
    OptionError,
    WeightsError,
)
from captioner.loading import load
from captioner.results import Caption, Result

__version__ = "0.1.0"

__all__ = [
    "Caption",
    "Captioner",
    "CaptionerError",
    "DataError",
    "DecodingOptions",
    "DependencyError",
    "ImageError",
    "ModelError",
    "OptionError",
    "Result",
    "WeightsError",
    "load",
]
