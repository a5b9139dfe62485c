"""HTTP requests whose answers are bounded in time and size, whatever a server sends."""

import http.client
import io
import socket
from contextvars import ContextVar
from time import monotonic
from typing import Any, Optional

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from .errors import BadAnswer

#: Bytes of an answer after decompression. A page of 500 task runs has a few hundred thousand.
LARGEST_ANSWER = 64 * 1024 * 1024

#: Bytes that are read at once. Compressed, they stand for up to a thousand times as many.
CHUNK = 8192

#: Encodings of answers. Several after each other multiply what few bytes stand for.
ENCODINGS = ("", "identity", "gzip", "deflate")

#: The reading of `time.monotonic` at which an answer has to be complete
_until: "ContextVar[float]" = ContextVar("until", default=float("inf"))


class Session(requests.Session):
    """Connections without retries of their own, on which every answer ends in time.

    Redirects are followed as `requests` follows them for prefect.Client: never with the API key to another host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.headers["Accept-Encoding"] = "gzip, deflate"
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def send_until(self, until: float, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request. Its answer has to be complete when `time.monotonic` reads `until`."""
        token = _until.set(until)
        try:
            return super().send(request, **{**options, "stream": True})
        finally:
            _until.reset(token)

    def get_redirect_target(self, resp: requests.Response) -> Optional[str]:
        """Return where an answer redirects to; None if it does not.

        Raises:
            BadAnswer: the redirect would turn the request, which is a POST, into a GET without its query.
        """
        target: Optional[str] = super().get_redirect_target(resp)
        if target is None:
            return None
        if resp.status_code in (301, 302, 303):
            raise BadAnswer(
                f"{resp.url} redirects with status {resp.status_code} to {target}, without the query. Set "
                "PREFECT__SERVER__ENDPOINT or PREFECT__CLOUD__API to the address that it redirects to.",
                may_pass=False,
            )
        # `requests` would read it without a limit
        read(resp)
        return target


def read(response: requests.Response) -> None:
    """Read the body of a response that was requested with `stream`.

    Raises:
        BadAnswer: it is larger than `LARGEST_ANSWER`, or compressed in an unknown way.
        requests.ConnectionError: it is not complete in time.
        requests.exceptions.ChunkedEncodingError: it was cut off.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ENCODINGS:
        response.close()
        raise BadAnswer(f"The answer is compressed as {encoding!r}, and not as gzip.", may_pass=False)
    parts, size = [], 0
    for part in response.iter_content(CHUNK):
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            response.close()
            raise BadAnswer(f"The answer has more than {LARGEST_ANSWER:,} bytes.", may_pass=False)
    response._content = b"".join(parts)


class _Timed(io.RawIOBase):
    """The bytes that come on a socket, up to an instant. The socket's own timeout is for each of its reads."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until, self._timeout = sock, until, sock.gettimeout()
        self._file: Any = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        left = self._until - monotonic()
        if left <= 0:
            raise socket.timeout("The answer was not complete in time.")
        self._sock.settimeout(left if self._timeout is None else min(self._timeout, left))
        count: Optional[int] = self._file.readinto(buffer)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock, min(_until.get(), monotonic() + 1e6)))


class _HttpConnection(HTTPConnection):
    response_class = _Response


class _HttpsConnection(HTTPSConnection):
    response_class = _Response


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    _POOLS = {"http": _HttpPool, "https": _HttpsPool}

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = self._POOLS
        return manager
