"""Tells agents that a flow run is ready, so that it need not wait for their next poll."""

import logging
import threading
import urllib.request
from http.client import HTTPException
from typing import Iterable

logger = logging.getLogger(__name__)

#: Seconds
TIMEOUT = 2.0


class Poker:
    """Pokes agents that were started with ``--agent-address``, from a thread of its own.

    Pokes that come while one is on its way are answered by a single further one. An agent that cannot be reached
    finds the flow run at its next poll.

    Args:
        addresses: the agents' addresses, such as ``http://127.0.0.1:8081``.
    """

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._urls = [address.rstrip("/") + "/api/poke" for address in addresses]
        self._due = threading.Event()
        self._stopped = False
        # an address on this machine must not be looked up at a proxy
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._thread = threading.Thread(target=self._loop, name="poke", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._due.set()
        self._thread.join(TIMEOUT * (len(self._urls) + 1))

    def poke(self) -> None:
        self._due.set()

    def _loop(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            # not before, or the wake of `stop` could be cleared
            if self._stopped:
                return
            for url in self._urls:
                try:
                    self._opener.open(url, timeout=TIMEOUT).close()
                except (OSError, ValueError, HTTPException) as error:
                    logger.debug("The agent at %s could not be poked: %s", url, error)
