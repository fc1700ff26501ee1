"""Text to tokens to numbers, and all the way back."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import ModelError, OptionError
from captioner.tokens import SPECIAL_TOKENS, TOKENIZERS, Vocabulary, make_tokenizer

# What the Penn Treebank's own sed script and coco-caption's list of punctuation make of these, worked out by hand.
PENN_TREEBANK = {
    "A dog runs.": "a dog runs",
    "A dog doesn't run , it walks .": "a dog does n't run it walks",
    "Don't! Can't? Won't.": "do n't ca n't wo n't",
    "The dog's owner's ball": "the dog 's owner 's ball",
    "the dog 's ball": "the dog 's ball",
    "The boys' shoes": "the boys shoes",
    "They're sure; I'm late, we've seen she'll go.": "they 're sure i 'm late we 've seen she 'll go",
    "He'd say it cannot swim.": "he 'd say it can not swim",
    'A sign says "stop" .': "a sign says stop",
    "A man says ``hello''": "a man says hello",
    "A black-and-white dog - running -- in a t-shirt...": "a black-and-white dog running in a t-shirt",
    "3 dogs, 1,000 people at 5:30: yes!": "3 dogs 1,000 people at 5:30 yes",
    "A man (in red) [left] {right} waits": "a man in red left right waits",
    "A man -LRB- in red -RRB- -LSB- left -RSB- -LCB- right -RCB- waits": "a man in red left right waits",
    "$5 bill, 50% off": "$ 5 bill 50 % off",
    "a U.S. flag.": "a u.s. flag",
    "Ein Café": "ein café",
    "  two   spaces\tand\nlines ": "two spaces and lines",
    "": "",
    " . ": "",
}


@pytest.mark.parametrize("text", PENN_TREEBANK)
def test_words_are_those_of_the_penn_treebank(text: str) -> None:
    assert make_tokenizer("words").tokenize(text) == PENN_TREEBANK[text].split()


# The two differ where the standard keeps brackets (as -lrb-), guesses the ends of sentences, or knows curly quotes.
AGREED = [
    *(text for text in PENN_TREEBANK if text.strip(" .") and "in red" not in text),
    "A child in a pink dress is climbing up a set of stairs in an entry way .",
    "Two dogs of different breeds looking at each other on the road .",
    'A man wearing a " Michigan " sweatshirt , and his son .',
    "Someone's multi-colored T-shirt isn't dry, it's wet!",
    "A Labrador-mix jumps; 2 children, one in blue, don't look.",
    "He's wearing # 24 & the other team's no. 5",
    "gonna wanna gimme lemme",
    "a half-eaten 1/2 pizza w/o cheese at 10 o'clock",
    "Mr. Smith's St. Bernard dog",
    "A 4x4 truck, mid-jump: mud everywhere?",
]


@pytest.mark.skipif(shutil.which("java") is None, reason="the standard's own tokeniser needs Java")
@pytest.mark.parametrize("as_it_is", [True, False], ids=["as written", "without the final stop"])
def test_words_are_those_of_the_standard(as_it_is: bool, capfd: pytest.CaptureFixture[str]) -> None:
    standard = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    texts = [text if as_it_is else text.rstrip(" .") for text in AGREED]
    # It is a program that works line by line, so breaks within a text may not reach it.
    expected = standard.tokenize({number: [{"caption": " ".join(text.split())}] for number, text in enumerate(texts)})
    tokenizer = make_tokenizer("words")
    assert [" ".join(tokenizer.tokenize(text)) for text in texts] == [expected[n][0] for n in range(len(texts))]
    capfd.readouterr()  # its report on its speed


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("a dog 's ball", "a dog's ball"),
        ("it is n't theirs", "it isn't theirs"),
        ("they 're sure we 'll go", "they're sure we'll go"),
        ("i 'm here he 'd say we 've", "i'm here he'd say we've"),
        ("the '80s", "the '80s"),  # no clitic
        ("a 's-hertogenbosch sign", "a 's-hertogenbosch sign"),  # begins like one
        ("", ""),
    ],
)
def test_words_are_joined_as_people_write_them(tokens: str, text: str) -> None:
    assert make_tokenizer("words").join(tokens.split()) == text


# Letters of which no contraction like "gonna" or "cannot" is made.
STEMS = st.from_regex(r"[abdehioprstu]{1,6}(-[abdehioprstu]{1,6})?|[1-9][0-9]?", fullmatch=True)
CLITICS = st.sampled_from(["'s", "n't", "'m", "'d", "'ll", "'re", "'ve"])


@given(st.lists(st.tuples(STEMS, st.none() | CLITICS)))
def test_words_survive_joining(pairs: list[tuple[str, str | None]]) -> None:
    tokens = [token for pair in pairs for token in pair if token is not None]
    tokenizer = make_tokenizer("words")
    assert tokenizer.tokenize(tokenizer.join(tokens)) == tokens
    assert tokenizer.tokenize(tokenizer.join(tokens).upper() + " .") == tokens


@given(st.text())
def test_any_text_becomes_clean_words(text: str) -> None:
    for word in make_tokenizer("words").tokenize(text):
        assert word
        assert word.split() == [word]


@given(st.lists(st.text(min_size=1).filter(lambda token: token.split() == [token])))
def test_symbols_survive_joining(tokens: list[str]) -> None:
    tokenizer = make_tokenizer("symbols")
    assert tokenizer.tokenize(tokenizer.join(tokens)) == tokens


@given(st.text())
def test_characters_survive_joining(text: str) -> None:
    tokenizer = make_tokenizer("characters")
    assert tokenizer.join(tokenizer.tokenize(text)) == text
    assert len(tokenizer.tokenize(text)) == len(text)


def test_symbols_and_characters_keep_what_words_would_change() -> None:
    assert make_tokenizer("symbols").tokenize(" DH  AH . \n") == ["DH", "AH", "."]
    assert make_tokenizer("characters").tokenize("A b.") == ["A", " ", "b", "."]


def test_an_unknown_tokenizer_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(OptionError, match="'morse'") as caught:
        make_tokenizer("morse")
    for name in TOKENIZERS:
        assert name in str(caught.value)


# Vocabulary


def test_special_tokens_come_first_and_have_their_numbers() -> None:
    vocabulary = Vocabulary.build([["b"]])
    assert vocabulary.tokens == ("<pad>", "<bos>", "<eos>", "<unk>", "b")
    assert (vocabulary.pad, vocabulary.bos, vocabulary.eos, vocabulary.unk) == (0, 1, 2, 3)


def test_frequent_tokens_come_first_and_ties_in_alphabetical_order() -> None:
    sequences = [["dog", "cat", "a"], ["ant", "cat", "dog", "a", "a"], ["bee"]]
    assert Vocabulary.build(sequences).tokens[4:] == ("a", "cat", "dog", "ant", "bee")
    assert Vocabulary.build(reversed(sequences), min_count=2).tokens[4:] == ("a", "cat", "dog")
    assert Vocabulary.build(sequences, min_count=4).tokens == SPECIAL_TOKENS


def test_text_that_looks_like_a_special_token_does_not_become_one_twice() -> None:
    vocabulary = Vocabulary.build([["<eos>", "a", "<pad>"]])
    assert vocabulary.tokens == (*SPECIAL_TOKENS, "a")


def test_unknown_tokens_become_unk() -> None:
    vocabulary = Vocabulary.build([["a", "dog"]])
    assert vocabulary.encode(["dog", "wolf", "a"]) == [5, vocabulary.unk, 4]
    assert vocabulary.encode([]) == []
    assert "dog" in vocabulary
    assert "wolf" not in vocabulary


@given(st.lists(st.lists(st.text())), st.integers(1, 3))
def test_known_tokens_survive_the_vocabulary(sequences: list[list[str]], min_count: int) -> None:
    vocabulary = Vocabulary.build(sequences, min_count=min_count)
    assert len(vocabulary) == len(vocabulary.tokens) == len(set(vocabulary.tokens))
    assert vocabulary.decode(range(len(vocabulary))) == list(vocabulary.tokens)
    for sequence in sequences:
        expected = [token if token in vocabulary else "<unk>" for token in sequence]
        assert vocabulary.decode(vocabulary.encode(sequence)) == expected
    again = Vocabulary(list(vocabulary.tokens))
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)


def test_vocabularies_differ_by_order_and_from_anything_else() -> None:
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "a", "b"])
    assert vocabulary != Vocabulary([*SPECIAL_TOKENS, "b", "a"])
    assert vocabulary != vocabulary.tokens


@pytest.mark.parametrize("tokens", [[], ["a"], ["<bos>", "<pad>", "<eos>", "<unk>", "a"], ["a", *SPECIAL_TOKENS]])
def test_special_tokens_must_be_first(tokens: list[str]) -> None:
    with pytest.raises(ModelError, match="must start with <pad>, <bos>, <eos>, <unk>"):
        Vocabulary(tokens)


def test_no_token_may_occur_twice() -> None:
    with pytest.raises(ModelError, match="'a' twice"):
        Vocabulary([*SPECIAL_TOKENS, "b", "a", "c", "a"])
    with pytest.raises(ModelError, match="'<eos>' twice"):
        Vocabulary([*SPECIAL_TOKENS, "<eos>"])
