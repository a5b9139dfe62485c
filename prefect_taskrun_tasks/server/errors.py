"""What can be said to a caller."""


class Refused(Exception):
    """A request that cannot be carried out, in words for the caller. The Prefect client matches on some of them."""
