"""Lines of the log that would come hundreds of times a second: one a minute says how many there were."""

import time

#: Seconds between two lines that say the same
INTERVAL = 60.0


class Seldom:
    """Counts what happens, and says when it is time for a line about it.

    Example:
        >>> refused = Seldom()
        >>> count = refused.counted()
        >>> if count:
        ...     logger.warning("%s requests were refused in the last minute", count)
    """

    def __init__(self) -> None:
        self._next = 0.0
        self._count = 0

    def counted(self) -> int:
        """Counts one more; how many there were since the last line if it is time for another one, and 0 if not."""
        self._count += 1
        if time.monotonic() < self._next:
            return 0
        self._next = time.monotonic() + INTERVAL
        count, self._count = self._count, 0
        return count
