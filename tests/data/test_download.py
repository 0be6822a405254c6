import hashlib
import io
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bert4rec_jax.data import download
from bert4rec_jax.data.download import default_cache, fetch
from bert4rec_jax.errors import TemporaryError, UserError


def zipped(members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980: the same in every process
    return packed.getvalue()


RATINGS = "".join(f"{i}::7::4::978300760\n" for i in range(20_000))
ARCHIVE = zipped({"ml-1m/ratings.dat": RATINGS, "ml-1m/movies.dat": "7::Seven::\n"})
MD5 = hashlib.md5(ARCHIVE).hexdigest()


@dataclass
class Mirror:
    """A server of one archive that behaves badly on request, and the requests it has seen."""

    archive: bytes = ARCHIVE
    checksum: bytes | None = None
    status: int | None = None
    understands_range: bool = True
    tells_length: bool = True
    cuts_after: list[int] = field(default_factory=list)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.seen.append((handler.path, wanted))
        content = self.archive
        if handler.path.endswith(".md5"):
            content, wanted = self.checksum, None
        if self.status or content is None:
            handler.send_error(self.status or 404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        total = len(content)
        if wanted and self.understands_range:
            if start >= total:
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{total}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            content = content[start:]
        else:
            handler.send_response(200)
        if self.tells_length:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if self.cuts_after and not handler.path.endswith(".md5"):
            content = content[: self.cuts_after.pop(0)]
        handler.wfile.write(content)


@pytest.fixture
def mirror():
    answers = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers.answer(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_port}/sets"
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_download_is_unpacked_once(tmp_path, mirror):
    mirror.checksum = f"{MD5}  ml-1m.zip\n".encode()
    steps, said = [], []
    folder = fetch(
        "ml-1m",
        cache=tmp_path / "a" / "cache",
        base_url=mirror.url + "/",
        progress=lambda done, total: steps.append((done, total)),
        notify=said.append,
    )
    assert folder == tmp_path / "a" / "cache" / "ml-1m"
    assert (folder / "ratings.dat").read_text() == RATINGS
    assert names(folder) == ["movies.dat", "ratings.dat"]
    assert names(folder.parent) == ["ml-1m"]
    assert steps[-1] == (len(ARCHIVE), len(ARCHIVE))
    assert said == []
    assert mirror.seen == [("/sets/ml-1m.zip", None), ("/sets/ml-1m.zip.md5", None)]
    fetch("ml-1m", cache=tmp_path / "a" / "cache", base_url=mirror.url)
    assert len(mirror.seen) == 2


@pytest.mark.parametrize(
    "published", [f"{MD5} *ml-1m.zip", f"MD5 (ml-1m.zip) = {MD5.upper()}\n", MD5]
)
def test_checksums_come_in_several_forms(tmp_path, mirror, published):
    mirror.checksum = published.encode()
    assert fetch("ml-1m", cache=tmp_path, base_url=mirror.url).is_dir()


def test_a_wrong_checksum_removes_the_download(tmp_path, mirror):
    mirror.checksum = b"0" * 32
    with pytest.raises(
        UserError, match=rf"MD5 sum {MD5}, published is 0{{32}}; .* was removed: run"
    ):
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
    assert names(tmp_path) == []


def test_a_missing_checksum_is_said(tmp_path, mirror):
    said = []
    fetch("ml-1m", cache=tmp_path, base_url=mirror.url, notify=said.append)
    assert said == [
        f"{mirror.url}/ml-1m.zip.md5 does not exist: the download is checked by the zip's own sums "
        "only"
    ]


def test_a_checksum_file_without_a_sum(tmp_path, mirror):
    mirror.checksum = b"<html>welcome</html>"
    with pytest.raises(UserError, match=r"ml-1m\.zip\.md5 holds no MD5 sum; try later or another"):
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)


def test_a_cut_connection_is_resumed(tmp_path, mirror):
    mirror.checksum = MD5.encode()
    mirror.cuts_after = [1000, 500]
    for there in (1000, 1500):
        with pytest.raises(UserError, match=r"run the same command again to resume"):
            fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
        assert (tmp_path / "ml-1m.zip.part").stat().st_size == there
    fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
    asked = [wanted for path, wanted in mirror.seen if path.endswith(".zip")]
    assert asked == [None, "bytes=1000-", "bytes=1500-"]
    assert names(tmp_path) == ["ml-1m"]


def test_a_server_without_ranges_sends_everything_again(tmp_path, mirror):
    mirror.checksum = MD5.encode()
    mirror.understands_range = False
    mirror.cuts_after = [1000]
    with pytest.raises(UserError, match="to resume"):
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
    steps = []
    folder = fetch(
        "ml-1m",
        cache=tmp_path,
        base_url=mirror.url,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert (folder / "ratings.dat").is_file()
    assert steps[-1] == (len(ARCHIVE), len(ARCHIVE))


def test_a_whole_download_that_was_not_verified_is_not_fetched_again(tmp_path, mirror):
    mirror.checksum = MD5.encode()
    (tmp_path / "ml-1m.zip.part").write_bytes(ARCHIVE)
    assert fetch("ml-1m", cache=tmp_path, base_url=mirror.url).is_dir()
    assert mirror.seen[0] == ("/sets/ml-1m.zip", f"bytes={len(ARCHIVE)}-")


def test_a_part_longer_than_the_file_is_started_over(tmp_path, mirror):
    mirror.checksum = MD5.encode()
    (tmp_path / "ml-1m.zip.part").write_bytes(ARCHIVE + b"more")
    assert fetch("ml-1m", cache=tmp_path, base_url=mirror.url).is_dir()


@pytest.mark.parametrize("status", [404, 503])
def test_an_answer_that_is_no_file_is_told(tmp_path, mirror, status):
    mirror.status = status
    with pytest.raises(
        UserError, match=rf"ml-1m\.zip: the server answers {status} .*; check the data"
    ) as caught:
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
    assert caught.value.status == {404: 2, 503: 75}[status]
    assert names(tmp_path) == []


def test_an_unreachable_server_is_told(tmp_path, mirror):
    with pytest.raises(TemporaryError, match=r"the connection failed \(.*refused\); run the same"):
        fetch("ml-1m", cache=tmp_path, base_url="http://127.0.0.1:1/sets")


def test_a_truncated_file_of_unknown_length_is_no_zip(tmp_path, mirror):
    mirror.tells_length = False
    mirror.cuts_after = [5000]
    with pytest.raises(UserError, match=r"ml-1m\.zip is no whole zip file and was removed; run"):
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
    assert names(tmp_path) == []


def test_damage_inside_the_zip_leaves_no_folder(tmp_path, mirror):
    damaged = bytearray(ARCHIVE)
    damaged[len(ARCHIVE) // 2] ^= 1
    mirror.archive = bytes(damaged)
    with pytest.raises(UserError, match="is no whole zip file and was removed"):
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../evil", "/evil", "ml-1m/../../evil", "..\\evil", "C:\\evil"])
def test_members_outside_of_the_folder_are_refused(tmp_path, mirror, name):
    mirror.archive = zipped({"ml-1m/ratings.dat": RATINGS, name: "x"})
    with pytest.raises(UserError, match="which lies outside of the folder to unpack into"):
        fetch("ml-1m", cache=tmp_path / "cache", base_url=mirror.url)
    assert names(tmp_path) == ["cache"]
    assert names(tmp_path / "cache") == ["ml-1m.zip"]


def test_an_archive_without_a_folder_inside(tmp_path, mirror):
    mirror.archive = zipped({"ratings.dat": RATINGS, "movies.dat": ""})
    assert names(fetch("ml-1m", cache=tmp_path, base_url=mirror.url)) == [
        "movies.dat",
        "ratings.dat",
    ]


def test_a_full_disk_is_told(tmp_path, mirror, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(UserError, match=r"No space left on device; make room or choose another"):
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)
    assert names(tmp_path) == ["ml-1m.zip"]
    monkeypatch.undo()
    assert fetch("ml-1m", cache=tmp_path, base_url="https://not.asked.example").is_dir()


@pytest.mark.parametrize("url", ["http://example.org/sets", "ftp://example.org", "file:///etc"])
def test_only_https_and_this_machine(tmp_path, url):
    with pytest.raises(
        UserError, match=r"ml-1m\.zip is not https; http is allowed for mirrors on th"
    ):
        fetch("ml-1m", cache=tmp_path, base_url=url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_loopback_addresses_may_be_http(host):
    download._require_safe(f"http://{host}:80/sets")


def test_redirects_do_not_leave_https(tmp_path, mirror):
    class Redirect(Mirror):
        def answer(self, handler):
            handler.send_response(302)
            handler.send_header("Location", "http://example.org/ml-1m.zip")
            handler.end_headers()

    mirror.answer = Redirect().answer
    with pytest.raises(UserError, match=r"http://example\.org/ml-1m\.zip is not https"):
        fetch("ml-1m", cache=tmp_path, base_url=mirror.url)


def test_the_default_cache_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "bert4rec-jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "bert4rec-jax"
