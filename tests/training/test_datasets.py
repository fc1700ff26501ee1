from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import DataError
from training.datasets import Example, hashed_split, read_dataset

LISTS = {"train": "Flickr_8k.trainImages.txt", "dev": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}


def touch(folder: Path, *names: str) -> None:
    """Picture files: the reader looks only whether they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def write_lists(folder: Path, **splits: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in splits.items():
        (folder / LISTS[split]).write_text("".join(f"{name}\n" for name in names))


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Flickr8k as first published: two captions an image, the stray ``.jpg.1``, and an image in no list."""
    names = ("a.jpg", "b.jpg", "c.jpg", "unlisted.jpg")
    lines = [f"{name}#{i}\tcaption {i} of {name} ." for name in (*names, "stray.jpg.1") for i in range(2)]
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    write_lists(tmp_path, train=["a.jpg"], dev=["b.jpg"], test=["c.jpg"])
    touch(tmp_path / "Images", *names)
    return tmp_path


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Kaggle's single table, with captions that hold commas and quotes."""
    (tmp_path / "captions.txt").write_text(
        "image,caption\n"
        'a.jpg,"A red, white and blue ""flag"" ."\n'
        "a.jpg,A flag .\n"
        "\n"
        "b.jpg,A dog , running .\n"
        "c.jpg,A cat .\n"
    )
    touch(tmp_path / "Images", "a.jpg", "b.jpg", "c.jpg")
    return tmp_path


def karpathy_entry(name: str, split: str) -> dict[str, object]:
    return {"filename": name, "split": split, "sentences": [{"raw": f"A T-shirt on {name}.", "tokens": ["tshirt"]}]}


def write_karpathy(folder: Path, *entries: dict[str, object]) -> Path:
    path = folder / "dataset_flickr8k.json"
    path.write_text(json.dumps({"images": entries}))
    touch(folder / "Images", *(str(entry.get("filename")) for entry in entries))
    return path


def test_original_layout(original: Path) -> None:
    dataset = read_dataset(original)
    assert list(dataset) == ["train", "dev", "test"]
    assert dataset["train"] == [
        Example(original / "Images/a.jpg", ("caption 0 of a.jpg .", "caption 1 of a.jpg ."), "train")
    ]
    assert [example.image.name for split in ("dev", "test") for example in dataset[split]] == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("images", ["Flicker8k_Dataset", "Flickr8k_Dataset"])
def test_original_layout_as_its_archives_unpack(original: Path, images: str) -> None:
    (original / "Images").rename(original / images)
    text = original / "Flickr8k_text"
    text.mkdir()
    for name in ("Flickr8k.token.txt", *LISTS.values()):
        (original / name).rename(text / name)
    assert read_dataset(original)["dev"][0].image == original / images / "b.jpg"


def test_absent_test_list_is_fine_until_the_split_is_required(original: Path) -> None:
    (original / LISTS["test"]).unlink()
    assert list(read_dataset(original, required=("train", "dev"))) == ["train", "dev"]
    with pytest.raises(DataError, match=r"no test split.*it has train, dev"):
        read_dataset(original, required=("test",))


def test_absent_test_images_are_fine_until_the_split_is_required(original: Path) -> None:
    (original / "Images/c.jpg").unlink()
    assert list(read_dataset(original)) == ["train", "dev"]
    with pytest.raises(DataError, match="no test split, or none of its images"):
        read_dataset(original, required=("test",))


def test_partly_missing_images_are_named_and_counted(original: Path) -> None:
    write_lists(original, test=["c.jpg", "unlisted.jpg"])
    (original / "Images/c.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images of the test split are missing, first \S*c\.jpg"):
        read_dataset(original)


def test_missing_training_images_are_an_error(original: Path) -> None:
    (original / "Images/a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 1 images of the train split.*a\.jpg"):
        read_dataset(original)


@pytest.mark.parametrize("name", [LISTS["train"], LISTS["dev"]])
def test_missing_list_is_named_with_its_source(original: Path, name: str) -> None:
    (original / name).unlink()
    with pytest.raises(DataError) as caught:
        read_dataset(original)
    for part in (name, str(original), "https://www.kaggle.com/datasets/adityajn105/flickr8k", "karpathy/deepimagesent"):
        assert part in str(caught.value)


def test_missing_picture_folder_is_named(original: Path) -> None:
    (original / "Images").rename(original / "pictures")
    with pytest.raises(DataError, match=r"folder of pictures is missing in .*Images or Flicker8k_Dataset.*kaggle"):
        read_dataset(original)


def test_image_in_two_lists_is_a_leak(original: Path) -> None:
    write_lists(original, test=["c.jpg", "a.jpg"])
    with pytest.raises(DataError, match=r"testImages\.txt, line 2: a\.jpg is also in the train list"):
        read_dataset(original)


def test_listed_image_without_caption_is_an_error(original: Path) -> None:
    write_lists(original, dev=["b.jpg", "mute.jpg"])
    with pytest.raises(DataError, match=r"no caption for 1 images of the split lists, first mute\.jpg"):
        read_dataset(original)


@pytest.mark.parametrize("line", ["a.jpg#0 no tab", "a.jpg\tno number", "a.jpg#0\t   "])
def test_malformed_token_line_is_located(original: Path, line: str) -> None:
    (original / "Flickr8k.token.txt").write_text(f"b.jpg#0\tfine\n\n{line}\n")
    with pytest.raises(DataError, match=r"Flickr8k\.token\.txt, line 3: "):
        read_dataset(original)


def test_kaggle_layout_uses_the_original_lists(kaggle: Path) -> None:
    write_lists(kaggle, train=["a.jpg"], dev=["b.jpg"])
    dataset = read_dataset(kaggle)
    assert dataset["train"][0].captions == ('A red, white and blue "flag" .', "A flag .")
    assert dataset["dev"][0].captions == ("A dog , running .",)
    assert [len(examples) for examples in dataset.values()] == [1, 1], "an image in no list must not slip into a split"


def test_kaggle_layout_without_lists_splits_by_name(kaggle: Path) -> None:
    dataset = read_dataset(kaggle)
    placed = {example.image.name: split for split, examples in dataset.items() for example in examples}
    assert placed == {name: hashed_split(name) for name in ("a.jpg", "b.jpg", "c.jpg")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,text\n", "line 1: expected the header"),
        ("", "line 1: expected the header"),
        ("image,caption\na.jpg,fine\n\na.jpg\n", "line 4: expected an image name, a comma"),
        ('image,caption\na.jpg,"never closed\nb.jpg,swallowed\n', "quotes closed"),
        ("image,caption\na.jpg,\n", "line 2: the caption is empty"),
        (f'image,caption\na.jpg,"{"x" * 200_000}\n', "not CSV"),
    ],
)
def test_malformed_kaggle_table_is_located(kaggle: Path, text: str, message: str) -> None:
    (kaggle / "captions.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset(kaggle)


@given(st.text())
def test_hashed_split_is_a_split(name: str) -> None:
    assert hashed_split(name) in LISTS


def test_hashed_split_is_fixed_and_keeps_the_proportions() -> None:
    # Pinned: a change would move test images of existing datasets into training.
    assert [hashed_split(name) for name in ("a.jpg", "b.jpg", "1000268201_693b08cb0e.jpg")] == ["train", "dev", "test"]
    splits = [hashed_split(f"{number}.jpg") for number in range(8000)]
    assert splits.count("dev") == pytest.approx(1000, rel=0.1)
    assert splits.count("test") == pytest.approx(1000, rel=0.1)


def test_karpathy_layout(tmp_path: Path) -> None:
    splits = {"a.jpg": "train", "b.jpg": "restval", "c.jpg": "val", "d.jpg": "test"}
    path = write_karpathy(tmp_path, *(karpathy_entry(name, split) for name, split in splits.items()))
    dataset = read_dataset(tmp_path)
    assert {split: [example.image.name for example in dataset[split]] for split in dataset} == {
        "train": ["a.jpg", "b.jpg"],
        "dev": ["c.jpg"],
        "test": ["d.jpg"],
    }
    assert dataset["dev"] == [Example(tmp_path / "Images/c.jpg", ("A T-shirt on c.jpg.",), "dev")]
    assert read_dataset(path) == dataset


def test_karpathy_duplicate_across_splits_is_a_leak(tmp_path: Path) -> None:
    write_karpathy(tmp_path, karpathy_entry("a.jpg", "train"), karpathy_entry("a.jpg", "test"))
    with pytest.raises(DataError, match=r"a\.jpg is in the test and the train split"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"filename": "a.jpg", "split": "train"}, "image 1: not in Karpathy's layout"),
        ({"filename": "a.jpg", "split": "trian", "sentences": []}, "image 1: the split must be one of train.*'trian'"),
        ({"filename": 7, "split": "train", "sentences": []}, "image 1: not in Karpathy's layout"),
    ],
)
def test_malformed_karpathy_entry_is_located(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    write_karpathy(tmp_path, karpathy_entry("fine.jpg", "train"), entry)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_broken_karpathy_json_is_located(tmp_path: Path) -> None:
    write_karpathy(tmp_path).write_text('{"images":\n oops}')
    with pytest.raises(DataError, match=r"dataset_flickr8k\.json, line 2: not JSON"):
        read_dataset(tmp_path)


def test_jsonl_folder(tmp_path: Path) -> None:
    touch(tmp_path / "pictures", "a.png", "b.png")
    write_jsonl(
        tmp_path / "train.jsonl",
        {"image": "pictures/a.png", "caption": "one"},
        {"image": "pictures/../pictures/a.png", "captions": ["two", "three"]},
    )
    write_jsonl(tmp_path / "val.jsonl", {"image": str(tmp_path / "pictures/b.png"), "caption": " four "})
    assert read_dataset(tmp_path) == {
        "train": [Example(tmp_path / "pictures/a.png", ("one", "two", "three"), "train")],
        "dev": [Example(tmp_path / "pictures/b.png", ("four",), "dev")],
    }


@pytest.mark.parametrize("tokens", [["DH", "AH", "D AO"], [["DH", "AH", "D AO"]]])
def test_jsonl_tokens_are_used_as_given(tmp_path: Path, tokens: object) -> None:
    touch(tmp_path, "a.png")
    path = write_jsonl(tmp_path / "test.jsonl", {"image": "a.png", "tokens": tokens})
    (example,) = read_dataset(path)["test"]
    assert example.tokens == (("DH", "AH", "D AO"),)
    assert example.captions == ("DH AH D AO",)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ({"caption": "A dog."}, ["AH", "D"]),
        ({"caption": "A dog."}, [["AH", "D"]]),
        ({"captions": ["A dog.", "Dogs."]}, [["AH", "D"], ["D"]]),
    ],
)
def test_jsonl_text_beside_tokens(tmp_path: Path, text: dict[str, object], tokens: list[object]) -> None:
    touch(tmp_path, "a.png")
    path = write_jsonl(tmp_path / "train.jsonl", {"image": "a.png", **text, "tokens": tokens})
    (example,) = read_dataset(path)["train"]
    assert example.captions == ("A dog.", "Dogs.")[: len(example.captions)]
    assert example.tokens == (("AH", "D"), ("D",))[: len(example.captions)]
    assert example.has_text


def test_joined_tokens_are_no_text(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    path = write_jsonl(
        tmp_path / "train.jsonl", {"image": "a.png", "tokens": ["a"]}, {"image": "b.png", "caption": "a"}
    )
    assert [example.has_text for example in read_dataset(path)["train"]] == [False, True]


def test_jsonl_file_with_splits_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    rows = [{"image": "a.png", "caption": "a", "split": "val"}, {"image": "b.png", "caption": "b", "split": "train"}]
    dataset = read_dataset(write_jsonl(tmp_path / "pairs.jsonl", *rows, {"image": "c.png", "caption": "c"}))
    assert dataset["dev"][0].image.name == "a.png"
    assert dataset[hashed_split("c.png")][-1].image.name == "c.png"


def test_jsonl_leak_is_seen_through_another_spelling(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    write_jsonl(tmp_path / "train.jsonl", {"image": "a.png", "caption": "a"})
    write_jsonl(tmp_path / "dev.jsonl", {"image": "./x/../a.png", "caption": "a"})
    with pytest.raises(DataError, match=r"a\.png is in the dev and the train split"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("oops", "not JSON"),
        ("[]", 'expected an object with "image"'),
        ('{"caption": "a"}', 'expected an object with "image"'),
        ('{"image": "a.png"}', 'expected "caption" or "captions", "tokens", or text and tokens'),
        ('{"image": "a.png", "caption": "a", "captions": ["a"]}', 'expected "caption" or "captions"'),
        ('{"image": "a.png", "captions": []}', "none of them empty"),
        ('{"image": "a.png", "caption": "a", "tokens": []}', "none of them empty"),
        ('{"image": "a.png", "captions": ["a", "b"], "tokens": ["a"]}', "2 captions but 1 sequences of tokens"),
        ('{"image": "a.png", "caption": "a", "tokens": [["a"], ["b"]]}', "1 captions but 2 sequences of tokens"),
        ('{"image": "a.png", "captions": "a"}', '"captions" must be a list'),
        ('{"image": "a.png", "captions": ["a", 3]}', "empty or no text"),
        ('{"image": "a.png", "tokens": "a b"}', '"tokens" must be a list'),
        ('{"image": "a.png", "tokens": [["a"], []]}', '"tokens" must be a list'),
        ('{"image": "a.png", "tokens": ["a", ""]}', '"tokens" must be a list'),
        ('{"image": "a.png", "caption": "a", "split": "both"}', "the split must be one of"),
    ],
)
def test_malformed_jsonl_line_is_located(tmp_path: Path, line: str, message: str) -> None:
    touch(tmp_path, "a.png")
    path = tmp_path / "train.jsonl"
    path.write_text(f'{{"image": "a.png", "caption": "fine"}}\n{line}\n')
    with pytest.raises(DataError, match=rf"train\.jsonl, line 2: .*{message}"):
        read_dataset(path)


@pytest.mark.parametrize("token", ["<pad>", "<unk>"])
def test_what_cannot_be_a_token_is_located(tmp_path: Path, token: str) -> None:
    touch(tmp_path, "a.png")
    path = write_jsonl(tmp_path / "train.jsonl", {"image": "a.png", "tokens": ["a", token]})
    with pytest.raises(DataError, match=r"line 1.*cannot be a token"):
        read_dataset(path)


def test_tokens_for_some_captions_of_an_image_only(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    path = write_jsonl(
        tmp_path / "train.jsonl", {"image": "a.png", "caption": "a"}, {"image": "a.png", "tokens": ["a"]}
    )
    with pytest.raises(DataError, match=r"a\.png has tokens for 1 of its 2 captions"):
        read_dataset(path)


def nothing(folder: Path) -> Path:
    return folder


def absent_folder(folder: Path) -> Path:
    return folder / "nowhere"


def absent_file(folder: Path) -> Path:
    return folder / "train.jsonl"


def empty_file(folder: Path) -> Path:
    return write_jsonl(folder / "train.jsonl")


def binary_file(folder: Path) -> Path:
    (folder / "train.jsonl").write_bytes(b"\xff\xfe\x00")
    return folder


def folder_for_a_file(folder: Path) -> Path:
    (folder / "train.jsonl").mkdir()
    return folder / "train.jsonl"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, r"is no dataset: it should hold Flickr8k\.token\.txt, captions\.txt.*kaggle"),
        (absent_folder, "nowhere does not exist"),
        (absent_file, r"train\.jsonl is missing in"),
        (empty_file, "holds no examples"),
        (binary_file, "not UTF-8 text"),
        (folder_for_a_file, "cannot be read: Is a directory"),
    ],
)
def test_no_dataset_there(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(make(tmp_path))
