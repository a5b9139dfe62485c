"""A Prefect API that answers whatever a test wants."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Iterator, Type

from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks import api
from prefect_taskrun_tasks.runner import settings


@contextmanager
def serving(handler: Type[BaseHTTPRequestHandler]) -> Iterator[None]:
    """For the block, this process's Prefect talks to a server of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with set_temporary_config(settings(f"http://127.0.0.1:{server.server_port}")):
                yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def answering(status: int, *bodies: bytes, cut_off: int = 0) -> Iterator[None]:
    """An API that answers with one body after the other, and everything after that with the last. It is asked once.

    Args:
        status: of HTTP.
        bodies: sent as they are.
        cut_off: bytes of each that the API announces, but does not send.
    """
    coming = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = coming.pop(0) if len(coming) > 1 else coming[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - cut_off])

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler), api.patience(0):
        yield
