"""The file formats of captioning data: one reader per layout, each yielding a row per caption.

The layouts are described in :mod:`training.datasets`. Readers check form only; whether images exist and splits are
disjoint is checked there, once for all of them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioner.errors import DataError
from captioner.tokens import SPECIAL_TOKENS

SPLITS = ("train", "dev", "test")
SPLIT_NAMES = {"train": "train", "restval": "train", "dev": "dev", "val": "dev", "test": "test"}
IMAGE_FOLDERS = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
TEXT_FOLDERS = ("", "Flickr8k_text")
TOKEN_FILE, KAGGLE_FILE, KARPATHY_FILE = "Flickr8k.token.txt", "captions.txt", "dataset_flickr8k.json"
LIST_FILE = "Flickr_8k.{}Images.txt"
WHERE_TO_GET = (
    "Flickr8k is at https://www.kaggle.com/datasets/adityajn105/flickr8k, its split lists at "
    "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k (Flickr8k_text.zip), its Karpathy splits at "
    "https://cs.stanford.edu/people/karpathy/deepimagesent"
)


class Row(NamedTuple):
    """One caption of one image; ``split`` is None where the layout does not decide it, ``tokens`` where text does."""

    image: Path
    split: str | None
    caption: str
    tokens: tuple[str, ...] | None = None


def as_text(tokens: Sequence[str]) -> str:
    """What people read where tokens come without text."""
    return " ".join(tokens)


def read_rows(source: Path) -> Iterator[Row]:
    """Recognise the layout of a directory or file and read it.

    Raises:
        DataError: nothing known lies there, a file is missing or a line is malformed.
    """
    if source.suffix == ".jsonl":
        return _read_jsonl(source)
    if source.suffix == ".json":
        return _read_karpathy(source)
    if not source.is_dir():
        raise DataError(f"{source} does not exist, or is neither a folder nor a .jsonl or .json file. {WHERE_TO_GET}")
    jsonl = [source / f"{name}.jsonl" for name in SPLIT_NAMES]
    if any(path.is_file() for path in jsonl):
        return (row for path in jsonl if path.is_file() for row in _read_jsonl(path))
    if (source / KARPATHY_FILE).is_file():
        return _read_karpathy(source / KARPATHY_FILE)
    if _find_text(source, TOKEN_FILE):
        return _read_original(source)
    if (source / KAGGLE_FILE).is_file():
        return _read_kaggle(source)
    raise DataError(
        f"{source} is no dataset: it should hold {TOKEN_FILE}, {KAGGLE_FILE}, {KARPATHY_FILE} or train.jsonl. "
        f"{WHERE_TO_GET}"
    )


def _read_original(directory: Path) -> Iterator[Row]:
    """Lines ``name.jpg#0<TAB>caption``; images in no list, such as the stray ``*.jpg.1``, are left out."""
    splits, images = _read_lists(directory), _image_folder(directory)
    captioned = set()
    for where, line in _lines(_require_text(directory, TOKEN_FILE)):
        key, tab, caption = line.partition("\t")
        name, mark, _ = key.rpartition("#")
        if not (tab and mark):
            raise DataError(f"{where}: expected 'name.jpg#0', a tab and a caption")
        if name in splits:
            captioned.add(name)
            yield Row(images / name, splits[name], _caption(caption, where))
    _require_captions(splits, captioned, directory / TOKEN_FILE)


def _read_kaggle(directory: Path) -> Iterator[Row]:
    """A table ``image,caption`` in CSV; without any split list, images are split by hash."""
    path = directory / KAGGLE_FILE
    listed = any(_find_text(directory, LIST_FILE.format(split)) for split in SPLITS)
    splits, images = _read_lists(directory) if listed else {}, _image_folder(directory)
    captioned = set()
    # StringIO ends lines at newlines alone; splitlines() would also cut captions at Unicode separators.
    table = csv.reader(io.StringIO(_read_text(path)))
    try:
        if [name.strip() for name in next(table, [])] != ["image", "caption"]:
            raise DataError(f"{path}, line 1: expected the header 'image,caption'")
        for cells in filter(None, table):
            where = f"{path}, line {table.line_num}"
            # A caption whose commas were not quoted comes apart; one whose quote is not closed swallows lines.
            name, caption = cells[0], ",".join(cells[1:])
            if len(cells) < 2 or "\n" in caption:
                raise DataError(f"{where}: expected an image name, a comma and a caption with its quotes closed")
            if name in splits or not listed:
                captioned.add(name)
                yield Row(images / name, splits.get(name), _caption(caption, where))
    except csv.Error as error:
        raise DataError(f"{path}, line {table.line_num}: not CSV ({error})") from error
    _require_captions(splits, captioned, path)


def _read_karpathy(path: Path) -> Iterator[Row]:
    """Karpathy's JSON; its raw text is used, since its tokens drop punctuation inside words ('tshirt')."""
    images, where = _image_folder(path.parent), str(path)
    try:
        for number, entry in enumerate(json.loads(_read_text(path))["images"]):
            where = f"{path}, image {number}"
            image, split = images / entry["filename"], _split(entry["split"], where)
            for sentence in entry["sentences"]:
                yield Row(image, split, _caption(sentence["raw"], where))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{where}: not in Karpathy's layout, which is 'images', each with 'filename', 'split' and 'sentences' "
            f"of 'raw' text. {WHERE_TO_GET}"
        ) from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object a line; a row's own split goes before the one that the file is named after."""
    for where, line in _lines(path):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg})") from error
        if not isinstance(values, dict) or not isinstance(values.get("image"), str) or not values["image"]:
            raise DataError(f'{where}: expected an object with "image", the path of a picture')
        split = _split(values["split"], where) if "split" in values else SPLIT_NAMES.get(path.stem)
        # normpath, so that two spellings of one path do not hide a leak between splits.
        image = Path(os.path.normpath(path.parent / values["image"]))
        for caption, tokens in _captions(values, where):
            yield Row(image, split, caption, tokens)


def _captions(values: dict[str, Any], where: str) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """The captions of a JSONL row, each with its tokens if it comes with any."""
    given = [values[key] for key in ("caption", "captions", "tokens") if key in values]
    if not given or not all(given) or {"caption", "captions"} <= values.keys():
        raise DataError(f'{where}: expected "caption" or "captions", "tokens", or text and tokens, none of them empty')
    texts, sequences = list(_texts(values, where)), list(_sequences(values, where))
    if texts and sequences and len(texts) != len(sequences):
        raise DataError(f"{where}: {len(texts)} captions but {len(sequences)} sequences of tokens; give as many")
    if sequences:
        yield from zip(texts or map(as_text, sequences), sequences, strict=True)
    else:
        yield from ((text, None) for text in texts)


def _texts(values: dict[str, Any], where: str) -> Iterator[str]:
    captions = [values["caption"]] if "caption" in values else values.get("captions", [])
    if not isinstance(captions, list):
        raise DataError(f'{where}: "captions" must be a list of strings')
    for caption in captions:
        yield _caption(caption, where)


def _sequences(values: dict[str, Any], where: str) -> Iterator[tuple[str, ...]]:
    content = values.get("tokens", [])
    nested = isinstance(content, list) and (not content or isinstance(content[0], list))
    for tokens in content if nested else [content]:
        if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) and token for token in tokens):
            raise DataError(f'{where}: "tokens" must be a list of strings, or a list of such lists')
        for token in tokens:
            if token in SPECIAL_TOKENS:
                raise DataError(f"{where}: {token!r} cannot be a token of the data, it means something else to a model")
        yield tuple(tokens)


def _caption(text: object, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: the caption is empty or no text")
    return text.strip()


def _split(name: object, where: str) -> str:
    if not isinstance(name, str) or name not in SPLIT_NAMES:
        raise DataError(f"{where}: the split must be one of {', '.join(SPLIT_NAMES)}, not {name!r}")
    return SPLIT_NAMES[name]


def _read_lists(directory: Path) -> dict[str, str]:
    """Image name to split, from Flickr8k's lists; the test list may be absent."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        file = LIST_FILE.format(split)
        if split == "test" and not _find_text(directory, file):
            continue
        for where, line in _lines(_require_text(directory, file)):
            name = line.strip()
            if splits.setdefault(name, split) != split:
                raise DataError(f"{where}: {name} is also in the {splits[name]} list; remove it from one of them")
    return splits


def _require_captions(splits: dict[str, str], captioned: set[str], path: Path) -> None:
    silent = [name for name in splits if name not in captioned]
    if silent:
        raise DataError(f"{path} has no caption for {len(silent)} images of the split lists, first {silent[0]}")


def _image_folder(directory: Path) -> Path:
    for name in IMAGE_FOLDERS:
        if (directory / name).is_dir():
            return directory / name
    raise DataError(f"the folder of pictures is missing in {directory}: {' or '.join(IMAGE_FOLDERS)}. {WHERE_TO_GET}")


def _find_text(directory: Path, name: str) -> Path | None:
    return next((path for folder in TEXT_FOLDERS if (path := directory / folder / name).is_file()), None)


def _require_text(directory: Path, name: str) -> Path:
    path = _find_text(directory, name)
    if path is None:
        raise DataError(f"{name} is missing in {directory}. {WHERE_TO_GET}")
    return path


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each after the words that say where it stands."""
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path.name} is missing in {path.parent}. {WHERE_TO_GET}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
