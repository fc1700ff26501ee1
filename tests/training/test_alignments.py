"""Alignments written in each format and read back, and what malformed ones are told."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import DataError
from training.alignments import read_alignments
from training.alignments.intervals import Alignment, Interval

Spans = list[tuple[float, float, str]]  # start and end in seconds, label

SYMBOLS = st.text(st.characters(exclude_categories=("Z", "C"), exclude_characters='"\\'), min_size=1, max_size=4)
LABELS = st.text(st.characters(exclude_categories=("C",)), max_size=6)


@st.composite
def spans(draw: st.DrawFn, labels: st.SearchStrategy[str] = SYMBOLS) -> Spans:
    """Spans one after the other, in whole milliseconds, some with a gap before."""
    steps = st.integers(min_value=0, max_value=2000)
    rows, end = [], 0
    for label in draw(st.lists(labels, min_size=1, max_size=8)):
        start = end + draw(steps)
        end = start + draw(steps)
        rows.append((start / 1000, end / 1000, label))
    return rows


def plain(intervals: Iterable[Interval]) -> Spans:
    return [(round(one.start, 6), round(one.end, 6), one.label) for one in intervals]


def read(path: Path, content: str | bytes) -> Alignment:
    """The one alignment of a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    alignments = list(read_alignments(path))
    assert len(alignments) == 1
    return alignments[0]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def long_textgrid(tiers: Sequence[tuple[str, Spans]]) -> str:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 99", "tiers? <exists>"]
    lines += [f"size = {len(tiers)}", "item []:"]
    for number, (name, rows) in enumerate(tiers, start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {quoted(name)}"]
        lines += ["        xmin = 0", "        xmax = 99", f"        intervals: size = {len(rows)}"]
        for index, (start, end, label) in enumerate(rows, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f"            text = {quoted(label)}"]
    return "\n".join(lines) + "\n"


def short_textgrid(tiers: Sequence[tuple[str, Spans]]) -> str:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "99", "<exists>", str(len(tiers))]
    for name, rows in tiers:
        lines += ['"IntervalTier"', quoted(name), "0", "99", str(len(rows))]
        lines += [line for start, end, label in rows for line in (str(start), str(end), quoted(label))]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alignments")


@pytest.mark.parametrize("write", [long_textgrid, short_textgrid])
@given(
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]), phones=spans(LABELS), words=spans(LABELS)
)
def test_textgrid_is_read_back(
    folder: Path, write: Callable[..., str], encoding: str, phones: Spans, words: Spans
) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    text = write([("words", words), ("other", []), ("phones", phones)]).replace("\n", "\r\n")
    alignment = read(folder / "a.b_0.TextGrid", mark + text.encode(encoding))
    assert (plain(alignment.phones), plain(alignment.words)) == (phones, words)
    assert alignment.utterance == "a.b_0"


@given(st.lists(spans(), min_size=1, max_size=3))
def test_ctm_is_read_back(folder: Path, utterances: list[Spans]) -> None:
    lines = [";; a comment"]
    for number, phones in enumerate(utterances):
        lines += [f"u{number} A {start} {end - start:.3f} {label} 0.9" for start, end, label in phones]
        lines += ["", "  ;; another"]
    (folder / "all.ctm").write_text("\n".join(lines), encoding="utf-8")
    found = list(read_alignments(folder / "all.ctm"))
    assert [plain(alignment.phones) for alignment in found] == utterances
    assert [alignment.utterance for alignment in found] == [f"u{number}" for number in range(len(utterances))]
    assert not any(alignment.words for alignment in found)


@given(st.lists(spans(), min_size=1, max_size=4))
def test_kaldis_positions_tell_the_words(folder: Path, spoken: list[Spans]) -> None:
    lines, phones, words, offset = [], [], [], 0.0
    for word in spoken:
        positions = ["S"] if len(word) == 1 else ["B", *"I" * (len(word) - 2), "E"]
        moved = [(round(start + offset, 3), round(end + offset, 3), label) for start, end, label in word]
        lines += [
            f"u 1 {start} {end - start:.3f} {label}_{position}"
            for (start, end, label), position in zip(moved, positions, strict=True)
        ]
        lines.append(f"u 1 {moved[-1][1]} 0.5 SIL")
        phones += [*moved, (moved[-1][1], round(moved[-1][1] + 0.5, 3), "SIL")]
        words.append((moved[0][0], moved[-1][1], ""))
        offset = phones[-1][1]
    alignment = read(folder / "positions.ctm", "\n".join(lines))
    assert (plain(alignment.phones), plain(alignment.words)) == (phones, words)


@given(spans())
def test_xlabel_is_read_back(folder: Path, phones: Spans) -> None:
    # Its labels follow one another, so a gap becomes a part of the label behind it.
    expected = [
        (before, end, label)
        for before, (_, end, label) in zip([0.0, *(end for _, end, _ in phones)], phones, strict=False)
    ]
    lines = ["separator ;", "nfields 1", "#", *(f"\t{end:.5f} 121 \t{label}" for _, end, label in phones)]
    alignment = read(folder / "x.lab", "\n".join(lines))
    assert plain(alignment.phones) == expected
    assert alignment.words == ()


@given(spans(LABELS.map(str.strip)))
def test_audacity_is_read_back(folder: Path, phones: Spans) -> None:
    lines = [line for start, end, label in phones for line in (f"{start:.6f}\t{end:.6f}\t{label}", "\\\t200.0\t4000.0")]
    assert plain(read(folder / "track.txt", "\n".join(lines)).phones) == phones


@given(st.lists(st.tuples(SYMBOLS, spans()), min_size=1, max_size=3), st.booleans(), st.sampled_from(" \t"))
def test_htk_is_read_back(folder: Path, spoken: list[tuple[str, Spans]], scored: bool, separator: str) -> None:
    lines, phones, words, offset = [], [], [], 0.0
    for word, rows in spoken:
        moved = [(round(start + offset, 3), round(end + offset, 3), label) for start, end, label in rows]
        for index, (start, end, label) in enumerate(moved):
            score = ["-57.1"] if scored else []
            named = [f"w{word}"] if index == 0 else []
            lines.append(separator.join([f"{start * 1e7:.0f}", f"{end * 1e7:.0f}", label, *score, *named]))
        phones += moved
        words.append((moved[0][0], moved[-1][1], f"w{word}"))
        offset = moved[-1][1]
    alignment = read(folder / "htk.lab", "\n".join(lines))
    assert (plain(alignment.phones), plain(alignment.words)) == (phones, words)


def test_a_word_of_htk_lasts_as_long_as_its_last_phone(tmp_path: Path) -> None:
    alignment = read(tmp_path / "a.lab", "0 1 sil\n1 3 dh -5 THE -9\n3 4 ah -5\n8 9 d -5 2\n")
    assert plain(alignment.words) == plain([Interval(1e-7, 4e-7, "THE", 2), Interval(8e-7, 9e-7, "2", 4)])


@pytest.mark.parametrize("name", ["phones", "Phone", "anna - phones", "Anna Lund - segments", "MAU"])
def test_tiers_are_found_by_name(tmp_path: Path, name: str) -> None:
    rows = [(0.0, 0.5, "AE")]
    text = long_textgrid([("notes", []), (name, rows)])
    points = '        class = "TextTier"\n name = "phones"\n xmin = 0\n xmax = 9\n points: size = 1\n'
    points += '        points [1]:\n number = 0.5 ! a comment with a "quote"\n mark = "AA"\n'
    text = text.replace("size = 2\n", "size = 3\n", 1).replace(
        "    item [1]:\n", f"    item [1]:\n{points}    item [2]:\n"
    )
    assert plain(read(tmp_path / "a.TextGrid", text).phones) == rows


def test_the_first_name_in_the_list_is_the_tier(tmp_path: Path) -> None:
    text = short_textgrid([("segments", [(0.0, 1.0, "x")]), ("phones", [(0.0, 1.0, "y")])])
    assert plain(read(tmp_path / "a.TextGrid", text).phones) == [(0.0, 1.0, "y")]


GRID = short_textgrid([("phones", [(0.0, 0.5, "AE"), (0.5, 1.0, "T")])])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: expected the file type in double quotes, not the end of the file"),
        (GRID.replace("TextGrid", "PitchTier"), "line 2: this is no TextGrid"),
        (GRID.replace('"T"', '"T'), "line 18: the double quote is never closed"),
        (GRID.replace('"AE"', "AE"), "line 16: expected an interval's label in double quotes, not 0.5"),
        (GRID.replace('"AE"', '"AE" "AH"'), "line 15: expected an interval's start, a number, not 'AH'"),
        (GRID[: GRID.index('"T"')], "line 17: expected an interval's label in double quotes, not the end of the file"),
        (GRID.replace("\n2\n", "\n-1\n"), "line 12: expected how many intervals or points there are, not -1.0"),
        (GRID.replace("IntervalTier", "Tier"), "line 9: a tier is an IntervalTier or a TextTier, not 'Tier'"),
        (GRID.replace("\n0.5\n1.0", "\n0.4\n1.0"), "line 16: 'T' starts at 0.4 s, before 'AE' ends at 0.5 s"),
        (GRID.replace("\n0.5\n1.0", "\n0.5\n0.1"), "line 16: 'T' ends at 0.1 s, before it starts at 0.5 s"),
        (GRID.replace('"phones"', '"syllables"'), "no interval tier of phones.* Its interval tiers: 'syllables'"),
        (
            short_textgrid([("a - phones", []), ("b - phones", [])]),
            "has 2 tiers of phones: 'a - phones', 'b - phones'; keep one speaker's",
        ),
        (b'"ooTextFile" \xe9', "neither UTF-8 nor UTF-16 text"),
    ],
)
def test_malformed_textgrid_is_located(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.TextGrid.*{message}"):
        read(tmp_path / "a.TextGrid", content)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u 1 0.5 0.1", "expected 'utterance channel start duration symbol"),
        ("u 1 0.5 0.1 AE 0.9 extra", "expected 'utterance channel start duration symbol"),
        ("u 1 half 0.1 AE", "'half' is no time"),
        ("u 1 0.5 nan AE", "'nan' is no time"),
        ("u 1 0.5 -0.1 AE", "'AE' ends at 0.4 s, before it starts at 0.5 s"),
        ("u 1 0.3 0.1 AE", "'AE' starts at 0.3 s, before 'DH' ends at 0.5 s"),
        ("u 2 0.5 0.1 AE", "u was there before; keep the lines of an utterance together, and one channel"),
        ("u 1 0.5 0.1 AE_I", "AE_I goes on with a word that has not begun"),
        ("u 1 0.5 0.1 AE_B", "the word that begins with AE_B does not end"),
        ("u 1 0.5 0.1 AE_B\nu 1 0.6 0.1 T_S", "line 4: T_S comes before the end of the word begun at line 3"),
        ("v 1 0 1 AE\nu 1 0.5 0.1 AE", "line 4: u was there before"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_malformed_ctm_is_located(tmp_path: Path, line: str, message: str, newline: str) -> None:
    where = message if message.startswith("line") else f"line 3: .*{message}"
    with pytest.raises(DataError, match=rf"a\.ctm, {where}"):
        read(tmp_path / "a.ctm", f";; comment\nu 1 0.0 0.5 DH\n{line}\n".replace("\n", newline))


def test_ctm_times_may_be_rounded(tmp_path: Path) -> None:
    alignment = read(tmp_path / "a.ctm", "u 1 0.00 0.13 DH\nu 1 0.12 0.08 AH\n")
    assert len(alignment.phones) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 100 sil\n100 dh\n", "line 2: expected a start, an end and a label"),
        ("0 100 sil\n100 x dh\n", "line 2: 'x' is no time"),
        (
            "0 100 sil\n\n200000 300000 dh\n100000 400000 ah",
            "line 4: 'ah' starts at 0.01 s, before 'dh' ends at 0.03 s",
        ),
        ("0 9000000 sil\n1000000 9000000 dh", "line 2: 'dh' starts at 0.1 s, before 'sil' ends at 0.9 s"),
        ("signal x\n#\n0.5 121\n", "line 3: expected 'end colour label'"),
        ("#\n0.5 121 a\n0.4 121 b", "line 3: 'b' ends at 0.4 s, before it starts at 0.5 s"),
        ("0.0\t0.5\n", "line 1: expected a start, an end and a label"),
        ("A dog runs.", "line 1: 'A' is no time"),
    ],
)
def test_malformed_labels_are_located(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.lab, {message}"):
        read(tmp_path / "a.lab", content)


def test_a_folder_is_read_in_order_whatever_else_lies_there(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna/b_0.TextGrid").write_text(GRID)
    (tmp_path / "anna/b_0.wav").touch()
    (tmp_path / "a.ctm").write_text("z 1 0 1 AE\na 1 0 1 AE\n")
    (tmp_path / "unaligned.txt").write_text("c_0 was too short\n")
    (tmp_path / "anna/b_0.lab").write_text("a dog runs\n")
    assert [alignment.utterance for alignment in read_alignments(tmp_path)] == ["z", "a", "b_0"]


def test_a_folder_of_label_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "c_0.LAB").write_text("0 1 sil\n", encoding="utf-8-sig")
    (tmp_path / "a_0.txt").write_text("0.0\t1.0\tAE\n")
    assert [alignment.utterance for alignment in read_alignments(tmp_path)] == ["a_0", "c_0"]


def test_one_name_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a_0.TextGrid").write_text(GRID)
    (tmp_path / "all.ctm").write_text("a_0 1 0 1 AE\n")
    with pytest.raises(DataError, match=r"the utterance a_0 is in both .*TextGrid and .*ctm; keep one"):
        list(read_alignments(tmp_path))


@pytest.mark.parametrize("name", ["", "nowhere", "picture.png"])
def test_no_alignment_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "picture.png").touch()
    with pytest.raises(DataError, match=r"is no alignment: give a folder of \.textgrid"):
        list(read_alignments(tmp_path / name))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.ctm cannot be read: No such file"):
        list(read_alignments(tmp_path / "a.ctm"))
