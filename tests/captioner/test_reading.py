from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import ModelError
from captioner.ngrams import END, START, NgramModel
from captioner.reading import WORDS_NAME, WordReader

LEXICON = {
    "a": [("AH0",), ("EY1",)],
    "black": [("B", "L", "AE1", "K")],
    "dog": [("D", "AO1", "G")],
    "dogs": [("D", "AO1", "G", "Z")],
    "for": [("F", "AO1", "R")],
    "four": [("F", "AO1", "R")],
    "runs": [("R", "AH1", "N", "Z")],
    "run": [("R", "AH1", "N")],
}
SENTENCES = [
    "a black dog runs",
    "four dogs run",
    "four black dogs run",
    "a dog runs for a dog",
    "a dog runs for four dogs",
]


@pytest.fixture(scope="module")
def reader() -> WordReader:
    return WordReader(LEXICON, NgramModel.learn(sentence.split() for sentence in SENTENCES))


def phones(text: str, between: str = "|") -> list[str]:
    return f" {between} ".join(" ".join(LEXICON[word][0]) for word in text.split()).split()


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("between", ["|", ""])
def test_sentences_return(reader: WordReader, sentence: str, between: str) -> None:
    assert reader.read(phones(sentence, between)) == sentence.split()


def test_stress_does_not_count(reader: WordReader) -> None:
    assert reader.read("AH | D AO2 G | R AH N Z".split()) == ["a", "dog", "runs"]
    assert reader.read(["EY"]) == ["a"], "every pronunciation counts"


def test_the_language_decides_between_words_that_sound_alike(reader: WordReader) -> None:
    assert reader.read(phones("for dogs run")) == ["four", "dogs", "run"]
    assert reader.read(phones("a dog runs four a dog")) == "a dog runs for a dog".split()


def test_what_no_word_sounds_like_is_shown_as_phones(reader: WordReader) -> None:
    assert reader.read("AH | K AE1 T | R AH N Z".split()) == ["a", "/K AE T/", "runs"]
    assert reader.read("AH K AE1 T R AH N Z".split()) == ["a", "/K AE T/", "runs"]


@pytest.mark.parametrize("between", ["|", "T | T", "R"])
def test_what_is_too_long_for_a_word_is_read_in_parts(reader: WordReader, between: str) -> None:
    """A model in a loop may say anything."""
    tokens = [*["ZH"] * 40, *between.split(), *["ZH"] * 40]
    said = " ".join(word.strip("/") for word in reader.read(tokens))
    assert said.split() == [token for token in tokens if token != "|"]


def test_a_misplaced_boundary_does_not_hide_a_word(reader: WordReader) -> None:
    assert reader.read("AH | B L AE K D | AO G | R AH N Z".split()) == ["a", "black", "dog", "runs"]


def test_a_boundary_decides_where_the_phones_do_not() -> None:
    lexicon = {"some": [("S",)], "where": [("W",)], "somewhere": [("S", "W")]}
    reader = WordReader(lexicon, NgramModel.learn([[word] for word in lexicon]))
    assert reader.read(["S", "|", "W"]) == ["some", "where"]
    assert reader.read(["S", "W"]) == ["somewhere"]


def test_silence_is_a_boundary_and_noise_is_nothing(reader: WordReader) -> None:
    assert reader.read("SIL AH SIL D SPN AO G SIL R AH N Z SIL".split()) == ["a", "dog", "runs"]


def test_nothing_reads_as_nothing(reader: WordReader) -> None:
    assert reader.read([]) == []
    assert reader.read(["|"]) == []


def test_other_languages_symbols_are_words_too() -> None:
    reader = WordReader({"niet": [("n", "i", "t")]}, NgramModel.learn([["niet"]]))
    assert reader.read(["n", "i", "t", "|", "n", "i", "t"]) == ["niet", "niet"]


def segmentations(symbols: tuple[str, ...], words: dict[tuple[str, ...], list[str]]) -> Iterator[list[str]]:
    if not symbols:
        yield []
    for size in range(1, len(symbols) + 1):
        for word in words.get(symbols[:size], []):
            for rest in segmentations(symbols[size:], words):
                yield [word, *rest]


@given(
    lexicon=st.dictionaries(
        st.sampled_from(["u", "v", "w", "x", "y"]), st.lists(st.sampled_from("BD"), min_size=1, max_size=3), min_size=2
    ),
    sentences=st.lists(st.lists(st.sampled_from(["u", "v", "w", "x", "y"]), max_size=4), min_size=1, max_size=8),
    symbols=st.lists(st.sampled_from("BD"), min_size=1, max_size=7),
)
def test_no_way_to_read_is_likelier(
    lexicon: dict[str, list[str]], sentences: list[list[str]], symbols: list[str]
) -> None:
    """Against all segmentations. With so few words, the beam is wider than all histories."""
    language = NgramModel.learn([*sentences, [*lexicon]], min_count=1)
    reader = WordReader({word: [tuple(sounds)] for word, sounds in lexicon.items()}, language)

    def likelihood(words: list[str]) -> float:
        line = (START, *words, END)
        return sum(language.log_probability(line[i], line[max(0, i - 2) : i]) for i in range(1, len(line)))

    words: dict[tuple[str, ...], list[str]] = {}
    for word, sounds in lexicon.items():
        words.setdefault(tuple(sounds), []).append(word)
    ways = [likelihood(way) for way in segmentations(tuple(symbols), words)]
    said = reader.read(symbols)
    if ways and not any(word.startswith("/") for word in said):
        assert likelihood(said) == pytest.approx(max(ways))
    elif not ways:
        assert any(word.startswith("/") for word in said)


def test_saved_and_loaded_it_reads_alike(reader: WordReader, tmp_path: Path) -> None:
    reader.save(tmp_path)
    loaded = WordReader.load(tmp_path)
    assert loaded is not None
    assert loaded.lexicon == reader.lexicon
    assert loaded.language.counts == reader.language.counts
    assert loaded.read(phones(SENTENCES[-1], "")) == SENTENCES[-1].split()


def test_a_model_without_the_file_has_no_reader(tmp_path: Path) -> None:
    assert WordReader.load(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"format": "captioner words", "format_version": 9, "lexicon": {}, "ngrams": {}}),
        json.dumps({"format": "captioner words", "format_version": 1, "lexicon": {}, "ngrams": {"a": 1}}),
        json.dumps({"format": "captioner words", "format_version": 1, "lexicon": {"a": "AH"}, "ngrams": {"a": "b"}}),
        json.dumps({"format": "captioner words", "format_version": 1, "lexicon": {"a": 3}, "ngrams": {"a": 1}}),
        json.dumps({"format": "captioner words", "format_version": 1, "lexicon": {"a": ["AH"]}, "ngrams": {}}),
    ],
)
def test_a_broken_file_raises(content: str, tmp_path: Path) -> None:
    (tmp_path / WORDS_NAME).write_text(content)
    with pytest.raises(ModelError, match=WORDS_NAME):
        WordReader.load(tmp_path)
