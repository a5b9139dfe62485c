"""Poking agents."""

import threading

from prefect_taskrun_tasks.server.poke import Poker


def test_a_poker_that_is_stopped_while_it_wakes_ends() -> None:
    poker = Poker()

    class Due(threading.Event):
        def clear(self) -> None:
            # what `stop` does, from another thread
            poker._stopped = True
            self.set()
            super().clear()

    poker._due = Due()
    poker.start()
    poker.poke()
    poker._thread.join(20)
    assert not poker._thread.is_alive()
