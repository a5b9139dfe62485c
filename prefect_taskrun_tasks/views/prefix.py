"""What the beginning of an id or of a name may mean."""

import re
from typing import Iterable, List, Optional, TypeVar
from uuid import UUID

from .. import api
from ..errors import Ambiguous

T = TypeVar("T")

#: Digits of an id at least; fewer would be taken for names too often
FEWEST_DIGITS = 4

#: Candidates that an error lists at most
MOST_CANDIDATES = 10


def id_begins(prefix: str) -> Optional[api.Where]:
    """The Hasura filter for ids that begin so; None if no id does."""
    digits = prefix.replace("-", "").lower()
    if not re.fullmatch(f"[0-9a-f]{{{FEWEST_DIGITS},32}}", digits):
        return None
    # a range, because the Prefect API compares ids, but does not look into them
    first, last = (str(UUID(digits.ljust(32, end))) for end in "0f")
    if not first.startswith(prefix.lower()):
        return None
    return {"_gte": first, "_lte": last}


def name_begins(prefix: str) -> api.Where:
    """The Hasura filter for names that may begin so; case does not matter, and some others fit too."""
    return {"_ilike": re.sub(r"[\\%_]", "_", prefix) + "%"}


def ambiguous(what: str, text: str, candidates: Iterable[str]) -> Ambiguous:
    """The error for what may mean any of several, each described by a line."""
    lines: List[str] = list(candidates)
    more = len(lines) > MOST_CANDIDATES
    listed = "\n  ".join(lines[:MOST_CANDIDATES] + (["..."] if more else []))
    return Ambiguous(f"{text!r} may mean several {what}. Give more of it, or an id:\n  {listed}")
