"""The registry of images, and a download that keeps nothing but the right bytes."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from deepred.errors import InputError
from deepred.io import datasets
from deepred.io.datasets import DownloadError, Entry
from deepred.io.images import to_array


def encoded(seed: int = 0, mode: str = "RGB") -> tuple[bytes, np.ndarray]:
    """A PNG's bytes and the RGB pixels in it, 64x48."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), np.array(image.convert("RGB"))


CONTENT, PIXELS = encoded()


def entry(url: str = "http://127.0.0.1:9/none", **changes) -> Entry:
    """The registry's entry of CONTENT."""
    fields = dict(
        dataset="set5", name="bird", width=64, height=48,
        sha256_file=hashlib.sha256(CONTENT).hexdigest(),
        sha256_rgb=hashlib.sha256(PIXELS.tobytes()).hexdigest(), url=url, licence="none stated",
    )  # fmt: skip
    return Entry(**{**fields, **changes})


def renamed_chunk() -> bytes:
    """A PNG whose second IDAT chunk has lost its name: Pillow raises SyntaxError on decoding."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    start, first, rest = buffer.getvalue().partition(b"IDAT")
    assert b"IDAT" in rest
    return start + first + rest.replace(b"IDAT", b"\0\0\0\0", 1)


# The registry -------------------------------------------------------------------------------------


def test_the_registry_lists_each_image_once():
    entries = datasets.registry()
    assert Counter(e.dataset for e in entries) == {
        "cset9": 9, "cset9_noisy25": 9, "set5": 5, "set14": 12, "ncsr": 4, "inpainting": 4,
    }  # fmt: skip
    for quality in (str, lambda e: e.path, lambda e: e.url):
        assert len({quality(e) for e in entries}) == len(entries)


def test_each_entry_is_complete():
    for e in datasets.registry():
        for digest in (e.sha256_file, e.sha256_rgb):
            assert re.fullmatch("[0-9a-f]{64}", digest), e
        # a commit, not a branch: what is behind a URL must not change
        assert re.fullmatch(
            r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/\S+", e.url
        ), e
        assert e.width >= 16 and e.height >= 16
        assert e.licence
        assert re.fullmatch(r"\w+", e.dataset) and re.fullmatch(r"\w+", e.name)  # part of a path


def test_no_two_entries_have_the_same_pixels_but_one_image_of_two_sets():
    entries = datasets.registry()
    shared = [d for d, n in Counter(e.sha256_rgb for e in entries).items() if n > 1]
    pairs = [{str(e) for e in entries if e.sha256_rgb == digest} for digest in shared]
    assert all(len({name.split("/")[0] for name in pair}) == len(pair) for pair in pairs), pairs


def test_select_takes_data_sets_and_images():
    entries = datasets.registry()
    assert datasets.select([]) == entries
    assert [e.name for e in datasets.select(["set5/bird", "ncsr/leaves"])] == ["bird", "leaves"]
    assert {e.dataset for e in datasets.select(["ncsr"])} == {"ncsr"}
    assert len(datasets.select(["set5", "set5/bird"])) == 5  # none twice


@pytest.mark.parametrize("name", ["set6", "bird", "set5/", "set5/Bird", "", "set5/bird.png"])
def test_select_says_what_it_does_not_know(name):
    with pytest.raises(InputError, match="unknown data set or image") as caught:
        datasets.select(["set5", name])
    assert repr(name) in str(caught.value)
    assert "cset9, set5, set14" in str(caught.value)
    assert "deepred data list" in str(caught.value)


# The folder ---------------------------------------------------------------------------------------


def test_the_folder_is_the_environments(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    assert datasets.folder() == tmp_path


@pytest.mark.parametrize("what", ["nowhere", "a file"])
def test_a_folder_that_is_none_is_refused(tmp_path, monkeypatch, what):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path / what))
    with pytest.raises(InputError, match=rf"DEEPRED_DATA=.*{what}: no such folder"):
        datasets.folder()
    with pytest.raises(InputError, match="DEEPRED_DATA"):
        datasets.load("set5", "bird")


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_it_is_a_cache_of_ours(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("DEEPRED_DATA", raising=False)
    else:
        monkeypatch.setenv("DEEPRED_DATA", value)
    assert datasets.folder().name == "deepred"
    assert datasets.folder().is_absolute()


def place(folder: Path, content: bytes) -> Path:
    path = folder / entry().path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_status_tells_present_missing_and_other_pixels(tmp_path):
    assert datasets.status(entry(), tmp_path) == "missing"
    place(tmp_path, CONTENT)
    assert datasets.status(entry(), tmp_path) == "present"
    place(tmp_path, encoded(1)[0])
    assert datasets.status(entry(), tmp_path) == "differs"


def test_the_same_pixels_in_other_bytes_are_present(tmp_path):
    path = place(tmp_path, b"")
    Image.fromarray(PIXELS).save(path, "BMP")
    assert datasets.status(entry(), tmp_path) == "present"


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "a bit", "a chunk's name"])
def test_a_damaged_file_differs(tmp_path, damage):
    middle = len(CONTENT) // 2
    content = {
        "text": b"not an image",
        "empty": b"",
        "cut": CONTENT[:middle],
        "a bit": CONTENT[:middle] + bytes([CONTENT[middle] ^ 1]) + CONTENT[middle + 1 :],
        "a chunk's name": renamed_chunk(),
    }[damage]
    place(tmp_path, content)
    assert datasets.status(entry(), tmp_path) == "differs"


# Loading ------------------------------------------------------------------------------------------


def test_load_reads_an_image_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "registry", lambda: [entry()])
    place(tmp_path, CONTENT)
    picture = datasets.load("set5", "bird")
    assert np.array_equal(to_array(picture.image), PIXELS)


def test_load_says_how_to_get_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    with pytest.raises(InputError, match="deepred data fetch set5/bird`, or set DEEPRED_DATA"):
        datasets.load("set5", "bird")


def test_load_refuses_other_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    path = place(tmp_path, encoded(1)[0])
    with pytest.raises(InputError, match="not the registry's image; fetch it again") as caught:
        datasets.load("set5", "bird")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", datasets.BUILT_IN)
def test_built_in_images_need_no_folder(monkeypatch, name):
    monkeypatch.setenv("DEEPRED_DATA", "/nowhere at all")
    picture = datasets.load("builtin", name)
    assert np.array_equal(to_array(picture.image), getattr(skimage.data, name)())
    assert picture.alpha is None


def test_unknown_built_in_images_are_refused():
    with pytest.raises(InputError, match=r"unknown built-in image 'lena'; known are astronaut"):
        datasets.load("builtin", "lena")


def test_all_of_the_papers_images_are_the_registrys(paper_images):
    states = {str(e): datasets.status(e, paper_images) for e in datasets.registry()}
    assert set(states.values()) == {"present"}, states


def test_the_papers_images_have_the_registrys_sizes(paper_images):
    for e in datasets.registry():
        with Image.open(paper_images / e.path) as image:
            assert image.size == (e.width, e.height), e


# Downloads ----------------------------------------------------------------------------------------


class Server:
    """A web server on this machine; `pages` maps a path to (status, announced length, content)."""

    def __init__(self):
        self.pages: dict[str, tuple[int, int, bytes]] = {}
        self.requests: list[str] = []
        self.first: list[tuple[int, int, bytes]] = []  # answers before the page's
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                page = outer.pages.get(self.path, (404, 4, b"none"))
                status, length, content = outer.first.pop(0) if outer.first else page
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, content: bytes, *, length: int | None = None, status: int = 200) -> str:
        """Put a page there; its URL."""
        self.pages["/bird.png"] = (status, len(content) if length is None else length, content)
        return f"{self.url}/bird.png"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(datasets, "WAITS", (0, 0))
    server = Server()
    yield server
    server.close()


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def test_a_good_file_is_fetched_once(tmp_path, server):
    wanted = entry(server.serve(CONTENT))
    assert datasets.fetch(wanted, tmp_path) == tmp_path / "set5" / "bird.png"
    assert files(tmp_path) == ["set5/bird.png"]
    assert (tmp_path / "set5" / "bird.png").read_bytes() == CONTENT
    assert datasets.status(wanted, tmp_path) == "present"
    datasets.fetch(wanted, tmp_path)
    assert server.requests == ["/bird.png"]


def test_the_folder_is_made(tmp_path, server):
    datasets.fetch(entry(server.serve(CONTENT)), tmp_path / "not" / "yet")
    assert files(tmp_path) == ["not/yet/set5/bird.png"]


def test_the_same_pixels_in_other_bytes_are_not_fetched_again(tmp_path, server):
    Image.fromarray(PIXELS).save(place(tmp_path, b""), "BMP")
    datasets.fetch(entry(server.serve(CONTENT)), tmp_path)
    assert server.requests == []


def bad_sources(server) -> dict[str, tuple[str, str]]:
    """URLs at which the right file is not, and what is said of them."""
    half = CONTENT[: len(CONTENT) // 2]
    return {
        "tampered": (lambda: server.serve(encoded(1)[0]), "sent other bytes"),
        "one bit": (lambda: server.serve(CONTENT[:-1] + b"\0"), "sent other bytes"),
        "empty": (lambda: server.serve(b""), "sent other bytes"),
        "short": (lambda: server.serve(half), "sent other bytes"),
        "cut off": (lambda: server.serve(half, length=len(CONTENT)), "could not download"),
        "cut off at once": (lambda: server.serve(b"", length=9), "could not download"),
        "not found": (lambda: f"{server.url}/other.png", "could not download .*404"),
        "broken": (lambda: server.serve(CONTENT, status=500), "could not download .*500"),
    }


BAD = list(bad_sources(None))


@pytest.mark.parametrize("existing", [None, encoded(2)[0]], ids=["nothing there", "a bad file"])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_download_keeps_nothing_and_spoils_nothing(tmp_path, server, kind, existing):
    if existing is not None:
        place(tmp_path, existing)
    prepare, reason = bad_sources(server)[kind]
    wanted = entry(prepare())
    with pytest.raises(DownloadError, match=reason) as caught:
        datasets.fetch(wanted, tmp_path)
    assert str(caught.value).startswith("set5/bird: ")
    assert wanted.url in str(caught.value)
    assert "\n" not in str(caught.value)
    again = kind in ("cut off", "cut off at once", "broken")  # what another try may mend
    assert len(server.requests) == (3 if again else 1)
    if existing is None:
        assert files(tmp_path) == []
    else:
        assert files(tmp_path) == ["set5/bird.png"]
        assert (tmp_path / "set5" / "bird.png").read_bytes() == existing


def test_a_bad_file_is_replaced_by_the_good_one(tmp_path, server):
    place(tmp_path, encoded(2)[0])
    datasets.fetch(entry(server.serve(CONTENT)), tmp_path)
    assert files(tmp_path) == ["set5/bird.png"]
    assert (tmp_path / "set5" / "bird.png").read_bytes() == CONTENT


def test_the_right_bytes_with_other_pixels_are_not_kept(tmp_path, server):
    wanted = entry(server.serve(CONTENT), sha256_rgb="0" * 64)
    with pytest.raises(DownloadError, match="other pixels than the registry's"):
        datasets.fetch(wanted, tmp_path)
    assert files(tmp_path) == []


def test_grey_files_count_as_rgb(tmp_path, server):
    content, pixels = encoded(3, "L")
    wanted = entry(
        server.serve(content),
        sha256_file=hashlib.sha256(content).hexdigest(),
        sha256_rgb=hashlib.sha256(pixels.tobytes()).hexdigest(),
    )
    datasets.fetch(wanted, tmp_path)
    assert datasets.status(wanted, tmp_path) == "present"


def test_no_server_is_a_download_error(tmp_path, server):
    url = server.serve(CONTENT)
    server.close()
    with pytest.raises(DownloadError, match="could not download"):
        datasets.fetch(entry(url), tmp_path)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_download_error(tmp_path, server):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(DownloadError, match="Not a directory"):
        datasets.fetch(entry(server.serve(CONTENT)), tmp_path / "file")
    assert files(tmp_path) == ["file"]


def test_an_error_without_words_is_named_by_its_kind(tmp_path, server, monkeypatch):
    import requests

    def get(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(DownloadError, match=r"\(TimeoutError\)"):
        datasets.fetch(entry(server.serve(CONTENT)), tmp_path)


def test_what_fails_for_a_moment_is_tried_again(tmp_path, server):
    half = (200, len(CONTENT), CONTENT[:100])
    url = server.serve(CONTENT)
    server.first += [(503, 4, b"busy"), half]
    datasets.fetch(entry(url), tmp_path)
    assert len(server.requests) == 3
    assert files(tmp_path) == ["set5/bird.png"]


@pytest.mark.parametrize("scheme", ["ftp", "file", "data", "HTTP+x"])
def test_only_the_web_is_fetched_from(tmp_path, scheme):
    with pytest.raises(DownloadError, match="only http and https addresses"):
        datasets.fetch(entry(f"{scheme}://127.0.0.1/bird.png"), tmp_path)


def test_a_download_is_limited_in_size_and_time(tmp_path, server, monkeypatch):
    wanted = entry(server.serve(bytes(100_000), length=10**9))
    monkeypatch.setattr(datasets, "LARGEST", 50_000)
    with pytest.raises(DownloadError, match="sends more than 50000 bytes"):
        datasets.fetch(wanted, tmp_path)
    monkeypatch.setattr(datasets, "SECONDS", -1.0)
    with pytest.raises(DownloadError, match="takes more than -1 s"):
        datasets.fetch(wanted, tmp_path)
    assert len(server.requests) == 2  # neither is tried again
    assert list(tmp_path.iterdir()) == []
