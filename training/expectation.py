"""Teach a model what CIDEr to expect of captions: ``python -m training.expectation --model DIR --data DIR``.

Fits :class:`captioner.decoding.expectation.Expectation` to the training captions, writes it beside the weights and lets
the model rank by it from then on. A recipe whose decoding has ``rank = "cider"`` ends with this.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import captioner
from captioner.checkpoint import read_info, resolve, write_info
from captioner.decoding.expectation import Expectation
from captioner.decoding.tfidf import ORDERS, Ngram, TfIdf
from captioner.errors import CaptionerError, DataError, ModelError, OptionError
from captioner.images import load_pixels
from captioner.tokens import Vocabulary, make_tokenizer
from training.cider import document_frequencies, fit_tfidf
from training.datasets import Example, read_dataset
from training.predict import BATCH, reference_tokens

MINIMUM = 10  # images whose captions have an n-gram, for it to be expected; half as many make the file twice as large
LEAST = 1e-3  # of the median deviation of all features
PENALTY = 300.0  # of the squared weights, for features of variance 1: from 100 to 1000 it makes little difference

Matrix = npt.NDArray[np.float64]


def add_expectation(model: str | Path, examples: Sequence[Example], *, device: str | None = None) -> Expectation:
    """Fit the expectation of a model, write it into its directory and make ``cider`` what it ranks by.

    What figures it had are those of another ranking, and are dropped.

    Raises:
        DataError: the captions have too little in common.
        ImageError: a picture cannot be read.
        ModelError: there is no such model, or it is broken.
        OptionError: the device is unknown or not here.
        OSError: the directory cannot be written into.
    """
    directory = resolve(model)
    expectation = fit_expectation(captioner.load(directory, engine="torch", device=device), examples)
    expectation.save(directory)
    info = read_info(directory)
    write_info(directory, replace(info, decoding=info.decoding.replace(rank="cider"), figures={}))
    return expectation


def fit_expectation(model: captioner.Captioner, examples: Sequence[Example], minimum: int = MINIMUM) -> Expectation:
    """Ridge regression from the summaries of pictures to the mean TF-IDF vectors of their captions.

    Each order of a caption's vector has length one, as it has in CIDEr; n-grams that hold unknown words or that fewer
    than ``minimum`` images have are left out.

    Raises:
        DataError: no n-gram is that common.
        ImageError: a picture cannot be read.
    """
    captions = reference_tokens(examples, make_tokenizer(model.info.tokenizer))
    tfidf = fit_tfidf(captions)
    ngrams = expected_ngrams(captions, model.info.vocabulary, minimum)
    weight, bias = regress(summarise(model, examples), expected_vectors(captions, tfidf), ngrams)
    numbers = np.full((len(ngrams), ORDERS), Vocabulary.pad, dtype=np.int32)
    for row, ngram in zip(numbers, ngrams, strict=True):
        row[: len(ngram)] = model.info.vocabulary.encode([str(token) for token in ngram])
    idf = np.array([tfidf.idf[ngram] for ngram in ngrams], dtype=np.float32)
    return Expectation(numbers, idf, weight.astype(np.float16), bias.astype(np.float32), tfidf.unseen)


def expected_ngrams(
    captions: Sequence[Sequence[Sequence[str]]], vocabulary: Vocabulary, minimum: int = MINIMUM
) -> list[Ngram]:
    """The n-grams of known words that the captions of at least ``minimum`` images have, in their own order.

    Raises:
        DataError: there are none.
    """
    known = set(vocabulary.tokens)
    frequencies = document_frequencies(captions)
    ngrams = sorted(ngram for ngram, images in frequencies.items() if images >= minimum and known.issuperset(ngram))
    if not ngrams:
        raise DataError(f"no word stands in the captions of {minimum} images: to rank by cider needs more data")
    return ngrams


def expected_vectors(captions: Sequence[Sequence[Sequence[str]]], tfidf: TfIdf) -> list[dict[Ngram, float]]:
    """Of each image, the mean vector of its captions."""
    vectors = []
    for image in captions:
        total = Counter[Ngram]()
        for caption in image:
            total.update(tfidf(caption).unit())
        vectors.append({ngram: share / len(image) for ngram, share in total.items()})
    return vectors


def regress(summaries: Matrix, vectors: Sequence[dict[Ngram, float]], ngrams: Sequence[Ngram]) -> tuple[Matrix, Matrix]:
    """Weights (G, F) and biases (G,) that foretell the vectors of images from their (images, F) summaries."""
    mean, deviation = summaries.mean(axis=0), summaries.std(axis=0)
    # What hardly varies tells nothing, and made as large as the others it would need weights beyond half precision.
    deviation[deviation <= LEAST * np.median(deviation)] = np.inf
    standard = (summaries - mean) / deviation
    places = {ngram: place for place, ngram in enumerate(ngrams)}
    products, totals = np.zeros((len(ngrams), summaries.shape[1])), np.zeros(len(ngrams))
    for features, vector in zip(standard, vectors, strict=True):
        known = {places[ngram]: share for ngram, share in vector.items() if ngram in places}
        where, shares = list(known), np.array(list(known.values()))
        products[where] += np.outer(shares, features)
        totals[where] += shares
    covariance = standard.T @ standard + PENALTY * np.eye(standard.shape[1])
    # Features of mean zero leave the means of the targets to the bias.
    weight = np.linalg.solve(covariance, products.T).T / deviation
    return weight, totals / len(vectors) - weight @ mean


def summarise(model: captioner.Captioner, examples: Sequence[Example]) -> Matrix:
    """(images, F) the summaries of pictures as they are."""
    parts = []
    with tqdm(total=len(examples), desc="summaries", unit="image", leave=False) as progress:
        for start in range(0, len(examples), BATCH):
            few = examples[start : start + BATCH]
            pixels = np.stack([load_pixels(example.image, model.info.image) for example in few])
            parts.append(model.engine.summary(model.engine.encode(pixels)))
            progress.update(len(few))
    return np.concatenate(parts).astype(np.float64)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.expectation", description="Teach a model what CIDEr to expect of captions."
    )
    parser.add_argument("--model", required=True, help="a model directory, which is changed, or a bundled model's name")
    parser.add_argument("--data", required=True, type=Path, help="dataset: Flickr8k in any layout, or JSONL")
    parser.add_argument("--device")
    arguments = parser.parse_args(argv)
    try:
        examples = read_dataset(arguments.data, required=("train",))["train"]
        expectation = add_expectation(arguments.model, examples, device=arguments.device)
    except (CaptionerError, OSError) as error:
        print(f"expectation: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError | ModelError) else 1
    print(f"{arguments.model} expects {len(expectation.ngrams)} n-grams of {len(examples)} images and ranks by them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
