"""URLs: a store in memory, a server on this machine, and what is said when neither answers."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import EINVAL
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from captioner.batch import pictures, remote
from captioner.batch.sources import Picture, count, find
from captioner.errors import DependencyError, ImageError, OptionError

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402 - where it is installed


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs: str, recursive: bool = False) -> list[str]:
    return [picture.name for picture in find(inputs, recursive=recursive)]


def contents(*inputs: str, recursive: bool = False) -> dict[str, bytes]:
    return {picture.name: picture.read() for picture in find(inputs, recursive=recursive)}


def refusal(picture: Picture) -> ImageError:
    with pytest.raises(ImageError) as caught:
        picture.read()
    return caught.value


def pack(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


TREE = {
    "photos/b.jpg": b"b",
    "photos/a.JPG": b"a",
    "photos/notes.txt": b"no",
    "photos/.hidden.jpg": b"no",
    "photos/@eaDir/a.jpg": b"no",
    "photos/deep/c.png": b"c",
    "photos/deep/deeper/d.webp": b"d",
    "photos/empty.jpg": b"",
    "odd/a[1].jpg": b"odd",
    "odd/a1.jpg": b"not this",
    "plain": b"plain",
    "shards/0.tar": pack({"x.jpg": b"x", "x.txt": b"no", "y/y.jpg": b"y" * 100_000}),
    "shards/1.tar.gz": gzip.compress(pack({"z.jpg": b"z"})),
    "shards/2.tar": pack({"w.jpg": b"w", "v.jpg": b"v" * 9000})[:-10_000],
}


@pytest.fixture(params=["memory", "file", "http"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The same tree behind URLs of three kinds."""
    if request.param == "memory":
        store = fsspec.filesystem("memory")
        for path, data in TREE.items():
            store.pipe_file(f"/tree/{path}", data)
        yield "memory://tree"
        store.rm("/tree", recursive=True)
        return
    for path, data in TREE.items():
        file = tmp_path / "tree" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    if request.param == "file":
        yield f"file://{tmp_path}/tree"
        return
    with served(partial(Quiet, directory=str(tmp_path))) as url:
        yield f"{url}/tree"


class Quiet(SimpleHTTPRequestHandler):
    """A server of files, with pages for its folders."""

    def log_message(self, *_: object) -> None:
        pass


class served:  # noqa: N801 - used as a function
    """A server in a thread, on a port that is free."""

    def __init__(self, handler: object) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
        self._server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Answers(BaseHTTPRequestHandler):
    """A server that answers as the path says."""

    protocol_version = "HTTP/1.1"
    waiting = threading.Event()
    seen: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_error(405)

    def do_GET(self) -> None:
        self.seen.append(self.path)
        first = self.path.split("/")[1]
        if first.isdigit():
            self.send_error(int(first))
        elif first == "waits":
            self.waiting.wait(20)
            self.close_connection = True
        elif first == "breaks":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"not all")
            self.close_connection = True
        elif first == "moved":
            self.send_response(302)
            self.send_header("Location", "/fine/a.jpg")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif first == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                self.close_connection = True
        else:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"fine")


@pytest.fixture
def server() -> Iterator[str]:
    Answers.seen = []
    Answers.waiting.clear()
    with served(Answers) as url:
        yield url
        Answers.waiting.set()


# What is there


def test_a_folder_gives_its_pictures_by_name(root: str) -> None:
    inside = {f"{root}/photos/{name}": TREE[f"photos/{name}"] for name in ("a.JPG", "b.jpg", "empty.jpg")}
    below = {f"{root}/photos/{name}": TREE[f"photos/{name}"] for name in ("deep/c.png", "deep/deeper/d.webp")}
    assert list(contents(f"{root}/photos/").items()) == list(inside.items())
    assert list(contents(f"{root}/photos/", recursive=True).items()) == [*inside.items(), *below.items()]
    if not root.startswith("http"):  # there only a slash tells
        assert contents(f"{root}/photos") == inside


def test_a_file_is_taken_whatever_its_name(root: str) -> None:
    assert contents(f"{root}/photos/b.jpg", f"{root}/plain") == {
        f"{root}/photos/b.jpg": b"b",
        f"{root}/plain": b"plain",
    }


def test_a_pattern_is_matched(root: str) -> None:
    assert names(f"{root}/photos/*.jpg") == [f"{root}/photos/b.jpg", f"{root}/photos/empty.jpg"]
    assert names(f"{root}/**/*.png", f"{root}/*/deep/*.png") == [f"{root}/photos/deep/c.png"]
    assert names(f"{root}/shards/[01].tar*") == [
        f"{root}/shards/0.tar/x.jpg", f"{root}/shards/0.tar/y/y.jpg", f"{root}/shards/1.tar.gz/z.jpg",
    ]  # fmt: skip
    for pattern in ("photos/*.gif", "gone/*.jpg"):
        with pytest.raises(OptionError, match="no picture matches"):
            find([f"{root}/{pattern}"])


def test_a_real_name_wins_over_the_pattern_it_could_be(root: str) -> None:
    quoted = "a%5B1%5D.jpg" if root.startswith("http") else "a[1].jpg"
    assert contents(f"{root}/odd/a[1].jpg") == {f"{root}/odd/{quoted}": b"odd"}


def test_an_archive_is_read_as_it_comes(root: str) -> None:
    assert contents(f"{root}/shards/0.tar", f"{root}/shards/1.tar.gz") == {
        f"{root}/shards/0.tar/x.jpg": b"x",
        f"{root}/shards/0.tar/y/y.jpg": b"y" * 100_000,
        f"{root}/shards/1.tar.gz/z.jpg": b"z",
    }
    whole, lost = find([f"{root}/shards/2.tar"])
    assert whole.read() == b"w"
    assert (lost.name, refusal(lost).code) == (f"{root}/shards/2.tar", "image_broken")


def test_only_a_file_of_this_machine_has_a_path(root: str, tmp_path: Path) -> None:
    (picture,) = find([f"{root}/photos/b.jpg"])
    assert picture.path == (tmp_path / "tree/photos/b.jpg" if root.startswith("file") else None)
    assert all(picture.path is None for picture in find([f"{root}/shards/0.tar"]))


def test_what_is_missing_is_told_at_once_or_by_its_picture(root: str) -> None:
    for picture in find([f"{root}/gone.jpg", f"{root}/gone.tar"]):
        assert refusal(picture).code == "image_not_found"
        assert str(refusal(picture)).startswith(f"{picture.name} does not exist")
    with pytest.raises(OptionError, match="does not exist"):
        find([f"{root}/gone/"])
    if not root.startswith("http"):
        with pytest.raises(OptionError, match="does not exist"):
            find([f"{root}/gone"])


def test_a_list_may_name_urls(root: str) -> None:
    Path("list").write_text(f"{root}/photos/b.jpg\n{root}/shards/0.tar\n{root}/gone/\n", encoding="utf-8")
    *there, gone = find([], lists=["list"])
    assert [picture.name for picture in there] == [
        f"{root}/photos/b.jpg", f"{root}/shards/0.tar/x.jpg", f"{root}/shards/0.tar/y/y.jpg",
    ]  # fmt: skip
    assert (gone.name, refusal(gone).code) == (f"{root}/gone/", "image_not_found")


def test_what_is_far_is_not_counted(root: str) -> None:
    assert count([f"{root}/photos/b.jpg"]) is None


def test_threads_read_at_the_same_time(root: str) -> None:
    found = list(find([f"{root}/photos/"], recursive=True)) * 10
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda picture: picture.read(), found))
    assert read == [TREE["photos" + picture.name.partition("/photos")[2]] for picture in found]


def test_too_many_bytes_are_not_read(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_BYTES", 4)
    monkeypatch.setattr(pictures, "MAX_BYTES", 4)
    (picture,) = find([f"{root}/plain"])
    assert refusal(picture).code == "image_too_large"
    assert contents(f"{root}/photos/b.jpg") == {f"{root}/photos/b.jpg": b"b"}


def test_links_of_this_machine_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "p/q").mkdir(parents=True)
    (tmp_path / "p/q/a.jpg").write_bytes(b"a")
    (tmp_path / "p/q/up").symlink_to("..")
    (tmp_path / "p/link.jpg").symlink_to("q/a.jpg")
    root = f"file://{tmp_path}/p"
    assert contents(root, recursive=True) == {f"{root}/link.jpg": b"a", f"{root}/q/a.jpg": b"a"}


def test_a_closed_folder_is_one_picture_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "p/q").mkdir(parents=True)
    (tmp_path / "p/z.jpg").touch()
    (tmp_path / "p/q").chmod(0)
    try:
        if os.access(tmp_path / "p/q", os.R_OK):
            pytest.skip("nothing is closed to this user")
        picture, closed = find([f"file://{tmp_path}/p"], recursive=True)
        assert (picture.name, closed.name) == (f"file://{tmp_path}/p/z.jpg", f"file://{tmp_path}/p/q")
        assert "Permission denied" in str(refusal(closed))
    finally:
        (tmp_path / "p/q").chmod(0o700)


# The web


def test_names_in_a_page_are_read_as_they_are_meant(tmp_path: Path) -> None:
    odd = ["a b.jpg", "50% #1?.jpg", "caf\u00e9.jpg", "@eaDir/no.jpg", "a&b.jpg"]
    for name in odd:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    with served(partial(Quiet, directory=str(tmp_path))) as url:
        found = contents(f"{url}/", recursive=True)
        assert [data.decode() for data in found.values()] == sorted(name for name in odd if "no" not in name)
        assert contents(f"{url}/a *.jpg") == {f"{url}/a%20b.jpg": b"a b.jpg"}


def test_a_query_is_no_pattern_and_no_suffix(server: str) -> None:
    given = [f"{server}/fine/a.jpg?size=large&name=*", f"{server}/fine/200?format=(x)", f"{server}/moved/a.jpg"]
    assert contents(*given) == dict.fromkeys(given, b"fine")
    assert Answers.seen == ["/fine/a.jpg?size=large&name=*", "/fine/200?format=(x)", "/moved/a.jpg", "/fine/a.jpg"]


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("404/a.jpg", "image_not_found", "does not exist"),
        ("410/a.jpg", "image_not_found", "does not exist"),
        ("401/a.jpg", "image_unreadable", "access is denied; check your credentials"),
        ("403/a.jpg", "image_unreadable", "access is denied; check your credentials"),
        ("500/a.jpg", "image_unreadable", "500"),
        ("breaks/a.jpg", "image_unreadable", "cannot be read"),
        ("403/a.tar", "image_unreadable", "access is denied; check your credentials"),
        ("breaks/a.tar", "image_unreadable", "cannot be read"),
        ("403/", "image_unreadable", "access is denied; check your credentials"),
    ],
)
def test_what_the_server_refuses_is_told_plainly(server: str, path: str, code: str, said: str) -> None:
    (picture,) = find([f"{server}/{path}"])
    error = refusal(picture)
    assert picture.name == f"{server}/{path}"
    assert error.code == code
    assert said in str(error)
    assert f"{server}/{path}" in str(error)


def test_a_server_that_waits_is_not_waited_for(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIME_TO_READ", 0.2)
    (picture,) = find([f"{server}/waits/a.jpg"])
    assert "the server takes too long" in str(refusal(picture))


def test_no_server_is_told_plainly() -> None:
    (picture,) = find(["http://127.0.0.1:1/a.jpg"])
    error = refusal(picture)
    assert error.code == "image_unreadable"
    assert "127.0.0.1:1" in str(error)


def test_an_endless_answer_is_left(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 1_000_000)
    (picture,) = find([f"{server}/endless/a.jpg"])
    assert refusal(picture).code == "image_too_large"


# Stores with habits of their own


class NoCredentialsError(Exception):
    """As botocore's, which is no error of the system's."""


class Peculiar(MemoryFileSystem):
    """A store that serves one caller at a time, and cannot give a part of nothing."""

    protocol = "peculiar"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    callers = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("peculiar://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        type(self).callers += 1
        if self.callers > 1:
            raise AssertionError("two callers at a time")
        time.sleep(0.001)
        assert end is not None, "as much was asked for as there is"
        data: bytes = super().cat_file(path, start, end)
        type(self).callers -= 1
        if "secret" in path:
            raise NoCredentialsError("Unable to locate credentials.\nMore of the same")
        if "odd" in path or (not data and start is not None):
            raise OSError(EINVAL, "The requested range is not satisfiable")
        return data


@pytest.fixture
def peculiar() -> Peculiar:
    fsspec.register_implementation("peculiar", Peculiar, clobber=True)
    Peculiar.store.clear()
    return Peculiar()


def test_a_file_without_bytes_has_none(peculiar: Peculiar) -> None:
    peculiar.pipe({"/p/empty.jpg": b"", "/p/odd.jpg": b"odd"})
    empty, odd = find(["peculiar://p/empty.jpg", "peculiar://p/odd.jpg"])
    assert empty.read() == b""
    assert "The requested range is not satisfiable" in str(refusal(odd))


def test_missing_credentials_are_told_plainly(peculiar: Peculiar) -> None:
    peculiar.pipe_file("/p/secret.jpg", b"secret")
    (picture,) = find(["peculiar://p/secret.jpg"])
    assert str(refusal(picture)) == (
        "peculiar://p/secret.jpg cannot be read: there are no credentials: Unable to locate credentials; set them up "
        "as for the store's own tools"
    )


def test_a_store_that_serves_one_at_a_time_is_asked_so(peculiar: Peculiar) -> None:
    peculiar.pipe({f"/p/{number}.jpg": b"data" for number in range(40)})
    found = list(find(["peculiar://p/"]))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda picture: picture.read(), found)) == [b"data"] * 40


# What is missing here


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DependencyError, match=r"pip install 'captioner\[remote\]' brings it"):
        find(["s3://bucket/a.jpg"])


def test_without_a_stores_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(DependencyError, match=r"s3:// .*Install s3fs.* pip install 'captioner\[remote\]' brings it"):
        find(["s3://bucket/a.jpg"])
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(DependencyError, match=r"abfs:// .*adlfs.* install it with pip"):
        find(["abfs://container/a.jpg"])
    Path("list").write_text("s3://bucket/a.jpg\n", encoding="utf-8")
    (picture,) = find([], lists=["list"])
    assert refusal(picture).code == "image_unreadable"


def test_an_unknown_store_is_refused() -> None:
    with pytest.raises(OptionError, match="nobody:// URLs cannot be read: Protocol not known: nobody"):
        find(["nobody://bucket/a.jpg"])


def test_nothing_is_imported_without_a_url() -> None:
    code = "import sys; from captioner.batch.sources import find; list(find(['.'])); assert 'fsspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
