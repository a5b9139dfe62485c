"""The key that the API asks for, where it has one."""

import hmac
import os
import stat
from pathlib import Path
from typing import Mapping, Union

#: Characters of a key
SHORTEST = 16


class ApiKeyUnusable(Exception):
    """A key that cannot be sent, could be guessed, or that others than its owner can read or change."""


class ApiKey:
    """What a caller has to know. It is in no message and in no log.

    Args:
        text: one word of printable ASCII, as it has to travel in a header, of at least `SHORTEST` characters.

    Raises:
        ApiKeyUnusable: it is none.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise ApiKeyUnusable("The API key is empty.")
        if not all("!" <= each <= "~" for each in text):
            raise ApiKeyUnusable("The API key must be one word of printable ASCII characters, to travel in a header.")
        if len(text) < SHORTEST:
            raise ApiKeyUnusable(
                f"The API key has {len(text)} characters, and needs {SHORTEST}, as it could be guessed. Make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        self._text = text

    def is_in(self, headers: Mapping[str, str]) -> bool:
        """Whether a request's headers have it, as ``Authorization: Bearer ...``."""
        # as prefect.Client sends it with PREFECT__CLOUD__API_KEY (client/client.py, _request)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # in a time that does not tell how much of it was right; headers may hold what is no ASCII
        is_same = hmac.compare_digest(given.strip().encode(), self._text.encode())
        return is_same and scheme.lower() == "bearer"

    @classmethod
    def of_file(cls, path: Union[str, Path]) -> "ApiKey":
        """The key in a file that only its owner can read.

        Raises:
            ApiKeyUnusable: it cannot be read, others can read or change it, or there is no key in it.
        """
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                for bits, do in ((stat.S_IRGRP | stat.S_IROTH, "read"), (stat.S_IWGRP | stat.S_IWOTH, "change")):
                    if mode & bits:
                        raise ApiKeyUnusable(
                            f"Others can {do} the API key in {str(path)!r}. Keep it to yourself: chmod 600 {path}"
                        )
                text = file.read().strip()
        except OSError as error:
            raise ApiKeyUnusable(f"The API key cannot be read: {error}") from error
        if not text:
            raise ApiKeyUnusable(f"There is no API key in {str(path)!r}: it is empty.")
        return cls(text)
