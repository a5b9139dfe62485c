"""A proxy of this machine that does to requests and answers what networks and gateways do to them."""

import random
import socket
import struct
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any, Dict, Optional, Set, Tuple
from typing import Counter as CounterOf
from urllib.parse import urlsplit

from conftest import eventually

#: What Prefect's own client outlasts: it sends such a request again, up to six times
MILD = ("reset before the request", "reset after the answer", "delay", "502")

#: What it does not outlast, as it reads the body of an answer outside of its retries: urllib3 repeats a request only
#: until the headers have come (see `Client._request` in prefect 1.4.1's client/client.py)
NASTY = ("reset in the body", "truncated body")

#: How the requests of this package begin, among them none of Prefect's own agent, flow runner and log upload
_OURS = tuple(
    b'{"query": "' + document
    for document in (
        b"query($",
        b"mutation($input: create_flow_run_input!)",
        b"mutation($input: cancel_flow_run_input!)",
    )
)

#: Seconds of a delay at most
LONGEST_DELAY = 0.5

#: Seconds for the backend to answer, those that it holds an answer included
PATIENCE = 60

_BAD_GATEWAY = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Proxy:
    """Passes requests on to a backend, and injects faults.

    Which of the requests are hit follows from the seed and from the order in which they come; that of concurrent ones
    is up to the machine.

    Args:
        url: of the backend.
        rate: the share of requests that are hit.
        our_rate: the same, of the requests of this package.
    """

    def __init__(self, url: str, rate: float, our_rate: float) -> None:
        self._backend = urlsplit(url)
        self._rate, self._our_rate = rate, our_rate
        self._lock = threading.Lock()
        self._random = random.Random()
        self._server = _Server(self)
        #: the address to give to Prefect
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        #: requests since `begin`
        self.requests = 0
        #: kind of fault -> how many since `begin`
        self.faults: CounterOf[str] = Counter()

    def begin(self, seed: str) -> None:
        """Counts from zero, and draws from `seed` from here on."""
        with self._lock:
            self._random.seed(seed)
            self.requests, self.faults = 0, Counter()

    def fault(self, body: bytes) -> Optional[str]:
        """Counts a request, and says what is to happen to it."""
        with self._lock:
            self.requests += 1
            is_ours = body.startswith(_OURS)
            if self._random.random() >= (self._our_rate if is_ours else self._rate):
                return None
            kind = self._random.choice(MILD + NASTY if is_ours else MILD)
            self.faults[kind] += 1
            return kind

    def draw(self) -> float:
        """Between 0 and 1."""
        with self._lock:
            return self._random.random()

    def connect(self) -> HTTPConnection:
        """A connection to the backend."""
        assert self._backend.hostname
        return HTTPConnection(self._backend.hostname, self._backend.port, timeout=PATIENCE)

    def settle(self) -> None:
        """Waits until all has been passed on that processes had sent which are gone by now.

        A backend takes a process for dead only ten minutes later, when nothing of it is on its way any more.
        """
        with socket.create_connection(self._server.server_address) as last:
            # connections are accepted in their order, so that the ones before it are known too
            eventually(lambda: last.getsockname() in self._server.connections.values())
        eventually(lambda: not any(map(self._server.is_left, list(self._server.connections))))

    def __enter__(self) -> "Proxy":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # agents and flow runs begin at once
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        #: open connection -> the address of the caller
        self.connections: Dict[socket.socket, Any] = {}
        #: those whose request changes nothing
        self.asking: Set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> Tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections[connection] = address
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.asking.discard(request)
        self.connections.pop(request, None)

    def is_left(self, connection: socket.socket) -> bool:
        """Whether the caller is gone, but not all that it may have sent has been passed on."""
        if connection in self.asking:
            return False
        try:
            connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass
        # the end, or something that has not been read yet
        return connection in self.connections

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that are killed in the middle of a request are no news here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # the package keeps its connections
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        proxy = self.server.proxy
        if b"mutation" not in body:
            self.server.asking.add(self.connection)
        try:
            self._pass_on(body, proxy, proxy.fault(body))
        finally:
            self.server.asking.discard(self.connection)

    do_GET = do_POST

    def _pass_on(self, body: bytes, proxy: Proxy, fault: Optional[str]) -> None:
        if fault == "delay":
            sleep(LONGEST_DELAY * proxy.draw())
        # the backend may have done what was asked, or never have heard of it
        if fault == "reset before the request" or (fault == "502" and proxy.draw() < 0.5):
            self._fail(fault)
            return
        connection = proxy.connect()
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            self._relay(connection.getresponse(), fault)
        except (OSError, HTTPException):
            # the backend is gone, or the caller
            self._reset()
        finally:
            connection.close()

    def _relay(self, response: HTTPResponse, fault: Optional[str]) -> None:
        if response.getheader("Content-Length") is None:
            self._relay_held(response, fault)
            return
        answer = response.read()
        if fault in ("reset after the answer", "502"):
            self._fail(fault)
            return
        self._send_head(response)
        is_cut = fault in NASTY
        self.wfile.write(answer[: len(answer) // 2] if is_cut else answer)
        self.wfile.flush()
        if is_cut:
            self._fail(fault)

    def _relay_held(self, response: HTTPResponse, fault: Optional[str]) -> None:
        """The head comes long before the body, and tells the caller that its answer is being held."""
        self._send_head(response)
        self.wfile.flush()
        while True:
            piece = response.read1(65536)
            if fault not in (None, "delay"):
                self._reset()
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
            if not piece:
                return

    def _send_head(self, response: HTTPResponse) -> None:
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            self.send_header(name, value)
        self.end_headers()

    def _fail(self, fault: Optional[str]) -> None:
        if fault == "502":
            self.send_response_only(502)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(_BAD_GATEWAY)))
            self.end_headers()
            self.wfile.write(_BAD_GATEWAY)
        elif fault == "truncated body":
            # an end like any other, before all that was announced has come
            self.close_connection = True
        else:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # takes effect when the files are closed that stand for it here, which happens next
        self.connection.close()

    def log_message(self, *args: Any) -> None:
        pass
