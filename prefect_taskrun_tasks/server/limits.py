"""How much one request may ask for, so that none takes the backend from all others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Beyond each of these a request is refused, in words that name the limit."""

    #: Bytes of a request. A batch of logs is up to 4 MB, and as JSON inside JSON its quotes are escaped twice.
    body: int = 32 * 1024 * 1024
    #: Characters of the documents of a request, which variables are not part of. Some callers write ids into them, by
    #: the thousand.
    document: int = 500_000
    #: Tokens (names, values, brackets) of the documents of a request. graphql-core parses some 40,000 in a second.
    tokens: int = 50_000
    #: Operations and fragments of one document
    definitions: int = 50
    #: Levels of fields within each other. Prefect's client asks for 5, tools that ask for the schema for 13.
    depth: int = 15
    #: Fields of one document, each as often as fragments repeat it
    fields: int = 2_000
    #: How often one document may select the same field of the same parent. graphql-core compares each with all others.
    repeats: int = 50
    #: Objects in one list of an input, each of which is checked against the schema. Prefect's client sends some 10,000
    #: lines of logs at most: 3 MB, of which each line counts for 300 characters at least (utilities/logging.py).
    objects: int = 20_000
    #: Characters of all texts in the variables of one operation. Prefect's client sends 4 million at most, of logs
    #: (utilities/logging.py); a flow run has 5 million for its parameters and as many for its context.
    texts: int = 16_000_000
    #: Terms of all `where` and `order_by` of one field; a list of values counts once
    terms: int = 5_000
    #: Rows in the answer to one field, those of relationships included. Prefect's client asks for all task runs of a
    #: flow run at once.
    rows: int = 250_000
    #: Characters of an answer. The task runs of a flow of 10,000 tasks, as Prefect's client asks for them, have 10
    #: million.
    answer: int = 64 * 1024 * 1024
    #: Seconds in which the queries of a request read, and its mutations begin. Prefect's client waits for 15, and then
    #: sends them again.
    seconds: float = 30.0
