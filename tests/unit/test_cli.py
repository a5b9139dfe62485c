"""How ``prefect-taskrun run`` prints results."""

from typing import Any

import pytest

from prefect_taskrun_tasks.cli.result import in_json


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (None, "null"),
        ([0, 1, 2, 3, 4], "[0, 1, 2, 3, 4]"),
        ({"text": "ä"}, '{"text": "\\u00e4"}'),
        ({1}, '"{1}"'),
        ([1, {2}], '[1, "{2}"]'),
        (float("nan"), '"nan"'),
        ([float("inf"), 1], '"[inf, 1]"'),
        ({(0, 1): "key"}, "\"{(0, 1): 'key'}\""),
        (b"bytes", "\"b'bytes'\""),
    ],
)
def test_a_result_is_printed_as_json_with_repr_for_what_json_does_not_have(value: Any, printed: str) -> None:
    assert in_json(value) == printed


def test_a_result_that_contains_itself_is_printed_as_its_repr() -> None:
    value = [1]
    value.append(value)  # type: ignore[arg-type]
    assert in_json(value) == '"[1, [...]]"'
