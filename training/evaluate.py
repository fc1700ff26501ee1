"""Measure a model on a split: ``python -m training.evaluate --model words --data DIR --split dev --json FILE``.

Figures follow the coco-caption standard: Penn Treebank tokens on both sides, lower-cased, without punctuation, all
references, captions decoded freely. Figures from ``--tokenizer simple`` are not comparable with it.

A model of phones is measured by its phones (:mod:`training.phone_metrics`), and where it can read them, by its words
too. With ``--phones``, the words of any other model are pronounced and measured as phones beside.

Under ``torchrun`` several processes share the pictures; the first of them scores all captions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import captioner
from captioner.checkpoint import read_info, resolve, write_info
from captioner.errors import CaptionerError, ModelError, OptionError
from captioner.loading import AUTO
from captioner.results import Caption
from captioner.tokens import WordTokenizer
from training import distributed
from training.datasets import Example, read_dataset
from training.diction import describe_diction, diction
from training.ensemble import load_ensemble
from training.metrics import require_scoring, score
from training.phone_metrics import require_phone_scoring, score_chance, score_people, score_phones
from training.predict import predict
from training.pronounce import phones_of, pronounce

OPTIONS = ("beam_size", "length_penalty", "max_length", "no_repeat_ngram", "rank")
RECORDED = ("scores", "diction", "images", "tokenizer", "decoding", "engine")


def evaluate(
    model: captioner.Captioner, data: Path, split: str, tokenizer: str, *, phones: bool = False, **options: Any
) -> dict[str, Any]:
    """Caption a split and score it; called by all processes, where there are several.

    Args:
        model: what captions.
        data: a dataset, see :mod:`training.datasets`.
        split: of the dataset.
        tokenizer: of the word metrics, see :func:`training.metrics.score`; where there is no text, there are none.
        phones: measure a model of words as phones too; a model of phones always is.
        **options: of decoding.

    Returns:
        ``scores`` by metric, what they rest on (``split``, ``images``, ``tokenizer``, ``decoding``, ``engine``,
        ``seconds``), ``anchors``: what chance and people score as phones, ``diction``: how the captions, where they are
        words, and each image's first reference are worded (:func:`training.diction.diction`), and ``predictions``: a
        row an image with its references.

    Raises:
        DataError: the split is not there.
        DependencyError: the metrics' package or Java is missing, or for phones, the ``speech`` extra.
    """
    symbols = model.info.tokenizer == "symbols"
    examples = distributed.agreed(lambda: read_dataset(data, required=(split,))[split])
    words = not symbols or (model.word_reader is not None and all(example.has_text for example in examples))
    if words:
        distributed.agreed(lambda: require_scoring(tokenizer))
    if symbols or phones:
        distributed.agreed(require_phone_scoring)
    started = time.monotonic()
    captions = predict(model, examples, **options)
    seconds = time.monotonic() - started
    figures: dict[str, Any] = {
        "model": model.name,
        "split": split,
        "images": len(examples),
        "tokenizer": tokenizer if words else None,
        "decoding": model.options(**options).to_dict(),
        "engine": model.engine.name,
        "seconds": round(seconds, 1),
    }
    measured = distributed.from_main(
        lambda: measure(examples, captions, tokenizer if words else None, symbols=symbols, phones=symbols or phones)
    )
    figures |= measured
    figures["predictions"] = [
        {
            "image": example.image.name,
            "model": model.name,
            "captions": [caption.to_row()],
            "references": list(example.captions),
        }
        for example, caption in zip(examples, captions, strict=True)
    ]
    return figures


def measure(
    examples: Sequence[Example], captions: Sequence[Caption], tokenizer: str | None, *, symbols: bool, phones: bool
) -> dict[str, Any]:
    """The ``scores``, ``anchors`` and ``diction`` of :func:`evaluate`.

    Args:
        examples: the pictures, with their references.
        captions: of each.
        tokenizer: of the word metrics; None leaves them out.
        symbols: whether the captions' tokens are phones.
        phones: whether to measure phones.
    """
    figures: dict[str, Any] = {"scores": {}, "anchors": {}, "diction": {}}
    if phones:
        references = phones_of(examples)
        said = [caption.tokens for caption in captions] if symbols else pronounce(caption.text for caption in captions)
        figures["scores"] |= score_phones(references, said)
        figures["anchors"]["chance"] = score_chance(references)
        if min(map(len, references)) > 1:  # else there are no people to compare
            figures["anchors"]["people"] = score_people(references)
    if tokenizer is not None:
        texts = [caption.text if caption.words is None else caption.words for caption in captions]
        figures["scores"] |= score([example.captions for example in examples], texts, tokenizer)
        worded = {"captions": texts, "references": [example.captions[0] for example in examples]}
        split_words = WordTokenizer().tokenize
        figures["diction"] = {who: diction([split_words(text) for text in said]) for who, said in worded.items()}
    return figures


def record(model: str | Path, figures: dict[str, Any]) -> None:
    """Write the figures of a split, without its predictions, into the model's own ``config.json``."""
    directory = resolve(model)
    info = read_info(directory)
    kept = {name: figures[name] for name in RECORDED}
    write_info(directory, replace(info, figures={**info.figures, figures["split"]: kept}))


def load(arguments: argparse.Namespace) -> captioner.Captioner:
    """The model that the command names; one as its users load it, several as one."""
    how = {"device": arguments.device, "precision": arguments.precision}
    if len(arguments.model) > 1:
        return load_ensemble(arguments.model, **how)
    return captioner.load(arguments.model[0], engine=arguments.engine, **how)


def report(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Print the figures, and write them where the command says."""
    comparable = "" if figures["tokenizer"] != "simple" else " (simple tokeniser: not comparable with the standard)"
    print(f"{figures['model']} on {figures['images']} {figures['split']} images, {figures['seconds']} s{comparable}")
    for metric, value in figures["scores"].items():
        anchors = [f"   {who} {reach[metric]:.4f}" for who, reach in figures["anchors"].items() if metric in reach]
        print(f"{metric:12} {value:.4f}{''.join(anchors)}")
    for who, wording in figures["diction"].items():
        print(f"{who:12} {describe_diction(wording)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if arguments.record:
        record(arguments.model[0], figures)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Measure a model on a split.")
    parser.add_argument(
        "--model", required=True, nargs="+", help="a bundled model's name or a model directory; several speak as one"
    )
    parser.add_argument("--data", required=True, type=Path, help="dataset: Flickr8k in any layout, or JSONL")
    parser.add_argument(
        "--phones", action="store_true", help="pronounce a model's words and measure them as phones too"
    )
    parser.add_argument("--split", choices=("train", "dev", "test"), default="dev")
    parser.add_argument("--tokenizer", choices=("ptb", "simple"), default="ptb", help="simple needs no Java [ptb]")
    parser.add_argument("--beam-size", type=int)
    parser.add_argument("--length-penalty", type=float)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--no-repeat-ngram", type=int)
    parser.add_argument("--rank", metavar="BY", help="score, cider or consensus")
    parser.add_argument("--engine", default=AUTO, help="what runs the network; several models need torch")
    parser.add_argument("--device")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and predictions here")
    parser.add_argument("--record", action="store_true", help="write the figures into the model's config.json")
    arguments = parser.parse_args(argv)
    if arguments.record and arguments.tokenizer != "ptb":
        parser.error("--record keeps comparable figures only: leave --tokenizer at ptb")
    if arguments.record and len(arguments.model) > 1:
        parser.error("--record writes into one model: name one")
    options = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    try:
        with distributed.group():
            model = distributed.first_of_machine_first(lambda: load(arguments))  # which may export it
            figures = evaluate(
                model, arguments.data, arguments.split, arguments.tokenizer, phones=arguments.phones, **options
            )
            distributed.from_main(lambda: report(arguments, figures))
    except (CaptionerError, OSError) as error:
        distributed.complain("evaluation", error)
        return 2 if isinstance(error, OptionError | ModelError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
