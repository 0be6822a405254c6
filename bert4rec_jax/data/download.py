"""Download: MovieLens archives, from GroupLens or a mirror, checked and unpacked into a cache.

Their licence allows research use and forbids redistribution, so the package ships none of them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from bert4rec_jax.errors import Notify, TemporaryError, UserError

NAMES = ("ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m")
BASE_URL = "https://files.grouplens.org/datasets/movielens"

Progress = Callable[[int, int | None], None]
"""Called with the bytes downloaded so far and, if the server reports it, the total."""

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 60
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416
_TRY_AGAIN = (408, 429)  # beside all from 500: too slow, too many requests


def default_cache() -> Path:
    """The default cache folder: `bert4rec-jax` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert4rec-jax"


def fetch(
    name: str,
    *,
    cache: Path | None = None,
    base_url: str | None = None,
    progress: Progress = lambda done, total: None,
    notify: Notify = lambda sentence: None,
) -> Path:
    """The folder of a MovieLens data set; downloaded on first use.

    An interrupted download resumes. The archive is compared with the published MD5 sum, if there is
    one, and the folder appears complete or not at all.

    Args:
      name: one of `NAMES`.
      cache: the folder that holds the data set or will hold it; None takes `default_cache()`.
      base_url: URL of the folder with `NAME.zip`, `https` (or `http` on this machine); None takes
        `BASE_URL`.
      progress: see `Progress`.
      notify: see `errors.Notify`.

    Raises:
      UserError: the server has no such file, or what it sent is not what was published.
      TemporaryError: the connection failed or the server is busy, and running again resumes the
        download; or the folder cannot be written.
    """
    folder = (cache or default_cache()) / name
    if folder.is_dir():
        return folder
    url = f"{(base_url or BASE_URL).rstrip('/')}/{name}.zip"
    archive = folder.with_name(f"{name}.zip")
    part = folder.with_name(f"{name}.zip.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not archive.exists():
            _download(url, part, progress)
            _verify(url, part, notify)
            part.replace(archive)
        _unpack(archive, folder)
        archive.unlink()
    except OSError as error:
        raise TemporaryError(
            f"cannot write {error.filename or folder.parent}: {error.strerror or error}; make room "
            "or choose another cache folder"
        ) from error
    return folder


def _download(url: str, part: Path, progress: Progress) -> None:
    """Download the bytes that `part` still lacks."""
    done = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, start=done)
    except urllib.error.HTTPError as error:
        error.close()
        if done and error.code == _RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{done}":
                return  # complete already, but not yet verified
            part.unlink()
            _download(url, part, progress)
            return
        busy = error.code >= 500 or error.code in _TRY_AGAIN
        raise (TemporaryError if busy else UserError)(
            f"{url}: the server answers {error.code} {error.reason}; check the data set's name "
            "and the mirror, or try later"
        ) from None
    with response:
        resumes = response.status == _PARTIAL_CONTENT and response.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {done}-")
        if not resumes:
            done = 0  # the server sends everything again
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if resumes else "wb") as file:
            for chunk in _chunks(response, url):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise TemporaryError(
            f"{url}: the connection ended after {done:,} of {total:,} bytes; run the same command "
            "again to resume"
        )


def _chunks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    with _network(url):
        while chunk := response.read(_CHUNK_BYTES):
            yield chunk


def _verify(url: str, part: Path, notify: Notify) -> None:
    """Compare a download with the MD5 sum published beside it."""
    try:
        with _open(f"{url}.md5") as response, _network(f"{url}.md5"):
            published = response.read(_CHUNK_BYTES).decode("ascii", errors="replace")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 404:
            raise UserError(
                f"{url}.md5: the server answers {error.code} {error.reason}; try later"
            ) from None
        notify(f"{url}.md5 does not exist: the download is checked by the zip's own sums only")
        return
    # `<sum>  name` and `MD5 (name) = <sum>` are both in use.
    found = re.search(r"\b[0-9a-fA-F]{32}\b", published)
    if found is None:
        raise UserError(f"{url}.md5 holds no MD5 sum; try later or another mirror")
    with part.open("rb") as file:
        actual = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if actual != found[0].lower():
        part.unlink()
        raise UserError(
            f"{url}: the download has the MD5 sum {actual}, published is {found[0].lower()}; the "
            "damaged file was removed: run the same command again, or try another mirror"
        )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip; `folder` appears complete or not at all.

    If the zip holds a single folder, that one becomes `folder`.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(archive) as zipped:
            for member in zipped.namelist():
                path = PurePosixPath(member.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member):
                    raise UserError(
                        f"{archive} holds {member!r}, which lies outside of the folder to unpack "
                        "into; delete the file and use a mirror you trust"
                    )
            zipped.extractall(partial)
        inside = list(partial.iterdir())
        whole = inside[0] if len(inside) == 1 and inside[0].is_dir() else partial
        whole.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        archive.unlink()
        raise UserError(
            f"{archive} is no whole zip file and was removed; run the same command again to "
            "download it, or try another mirror"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open(url: str, *, start: int = 0) -> HTTPResponse:
    """Request a file from byte `start` on; an HTTP error status is raised as `HTTPError`."""
    _require_safe(url)
    handlers: list[urllib.request.BaseHandler] = [_SafeRedirects()]
    if _is_loopback(url):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with _network(url):
        response: HTTPResponse = urllib.request.build_opener(*handlers).open(
            request, timeout=_TIMEOUT_SECONDS
        )
    return response


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Raise a failed connection as a TemporaryError; the server's answer, `HTTPError`, passes."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, HTTPException) as error:
        raise TemporaryError(
            f"{url}: the connection failed ({getattr(error, 'reason', None) or error}); run the "
            "same command again to resume"
        ) from None


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and _is_loopback(url)):
        raise UserError(f"{url} is not https; http is allowed for mirrors on this machine only")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
