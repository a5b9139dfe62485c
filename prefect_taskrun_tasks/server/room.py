"""How much memory one answer may take while it is read, and how many characters when it is written."""

import json
import math
from typing import Any, Dict, List, Tuple

from .document import Selection
from .errors import Refused

#: Bytes of memory for each character that an answer may have: Python's objects take more than the text that they become
MEMORY = 3

#: Bytes of Python's objects, for what stands for them in JSON
_OBJECTS = {"{": 200, "[": 64, ",": 60}

#: Bytes of a row, of a value in it, and of the key under which it is answered
ROW, VALUE, KEY = 200, 60, 20


class Large(Exception):
    """The answer is larger than those that are read at once may be."""


class Room:
    """What is left for an answer.

    Args:
        characters: that it may have.
        small: characters beyond which `Large` is raised.
    """

    def __init__(self, characters: float = math.inf, small: float = math.inf) -> None:
        self._limit = characters
        #: more than it has may be had for a large answer
        self.is_small = small < characters
        self._characters = min(small, characters)
        self._memory = self._characters * MEMORY
        #: by `id`, of the JSON that was read for this answer and is still held
        self._lengths: Dict[int, int] = {}

    def take(self, bytes: float) -> None:
        """Takes some of the memory.

        Raises:
            Large: there is not as much left, but more for large answers.
            Refused: there is not as much left.
        """
        self._memory -= bytes
        if self._memory < 0:
            raise self._refusal()

    def loads(self, text: Any) -> Any:
        """The value of stored JSON; its memory is taken before it is needed.

        Raises:
            Large: see `take`.
            Refused: see `take`.
        """
        if text is None:
            return None
        self.take(len(text))
        # what does not fit anyway is not searched
        self.take(sum(text.count(mark) * bytes for mark, bytes in _OBJECTS.items()))
        value = json.loads(text)
        if isinstance(value, (dict, list)):
            self._lengths[id(value)] = _written(text)
        return value

    def write(self, value: Any, field: Selection) -> None:
        """Takes the characters of the answer to a field; what many refer to is written as often.

        Raises:
            Large: there are not as many left, but more for large answers.
            Refused: there are not as many left.
        """
        length = self._length(value, field.fields, {}) + len(field.key)
        if length > self._characters:
            raise self._refusal()
        self._characters -= length

    def _length(self, value: Any, fields: List[Selection], known: Dict[Tuple[int, int], int]) -> int:
        if not fields or value is None:
            return self._scalar(value)
        rows = value if isinstance(value, list) else [value]
        total = len(rows) * (2 + sum(len(each.key) + 6 for each in fields)) + 2
        for each in fields:
            key, below = each.key, each.fields
            if below:
                for row in rows:
                    same = (id(row[key]), id(below))
                    if same not in known:
                        known[same] = self._length(row[key], below, known)
                    total += known[same]
            else:
                total += sum([self._scalar(row[key]) for row in rows])
        return total

    def _scalar(self, value: Any) -> int:
        if isinstance(value, str):
            return _written(value) + 2
        if isinstance(value, (dict, list)):
            length = self._lengths.get(id(value))
            return len(json.dumps(value)) if length is None else length
        return 5

    def _refusal(self) -> Exception:
        if self.is_small:
            return Large()
        return Refused(
            f"The answer is larger than {self._limit:,} characters. "
            "Ask for fewer rows at a time with where and limit, or for fewer fields."
        )


def _written(text: str) -> int:
    """Characters of a text in JSON, in which others than ASCII's are written as six."""
    return len(text) if text.isascii() else 6 * len(text)
