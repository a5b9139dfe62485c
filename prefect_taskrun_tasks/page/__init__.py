"""
The page: runs as a browser shows them. One script draws a timeline in a file by itself, and live from the backend.

It draws a picture, which is plain JSON; instants are milliseconds since 1970, or null::

    {
        "taken_at": 1700000000000,  # bars of runs that have not finished end here
        "flow_runs": [              # first the one that is shown; then its descendants, in any order
            {
                "id": "...", "name": "...", "flow": "...", "state": "Success", "message": "..." or null,
                "start": 1700000000000, "end": 1700000000000,
                # of descendants; null where the flow run does not say
                "parent_flow_run_id": "...", "parent_task_run_id": "...", "parent_map_index": 0,
            },
        ],
        "task_runs": [              # of the first flow run; lists, because there are thousands
            ["id", "slug", map_index, "state", message, start, end],
        ],
    }

The map index is -1 if a task run is not mapped, and of the parent of those that are. Messages of task runs are cut to
`LONGEST_MESSAGE` by whoever takes the picture.
"""

import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Type

#: Characters of a task run's message that are kept in a picture
LONGEST_MESSAGE = 200

_FOLDER = Path(__file__).parent

#: What draws, in an order in which each needs only those before it
_SCRIPTS = (
    "states.js",
    "element.js",
    "words.js",
    "rows.js",
    "concurrency.js",
    "row_view.js",
    "time_window.js",
    "timeline.js",
    "heading.js",
    "file.js",
)
_STYLES = ("states.css", "page.css", "timeline.css")

_IMPORT = re.compile(r"^import .*?;\n", re.MULTILINE | re.DOTALL)

_CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file that a browser asks for."""

    content_type: str
    text: str


def assets() -> Dict[str, Asset]:
    """What the live page consists of, by file name. Its beginning is ``live.html``."""
    texts = {path.name: path.read_text("utf-8") for path in _FOLDER.iterdir() if path.suffix in _CONTENT_TYPES}
    texts.update({"states.css": _states_css(), "states.js": _states_js()})
    return {name: Asset(f"{_CONTENT_TYPES[Path(name).suffix]}; charset=utf-8", text) for name, text in texts.items()}


def timeline_file(picture: Mapping[str, Any]) -> str:
    """One HTML page that shows a picture by itself: it asks nothing of any network."""
    files = assets()
    style = "".join(files[name].text for name in _STYLES)
    # what a module imports from another stands above it here
    script = "".join(_IMPORT.sub("", files[name].text) for name in _SCRIPTS)
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Timeline</title>
<style>{style}</style>
</head>
<body>
<noscript>The timeline is drawn by a script, which this browser does not run.</noscript>
<script type="application/json" id="picture">{_inside_html(picture)}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inside_html(value: Any) -> str:
    """JSON in which nothing can end the element that it stands in."""
    text = json.dumps(value, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: f"\\u{ord(found.group()):04x}", text)


def _states() -> Iterator[Type[Any]]:
    from prefect.engine import state

    found: List[Type[Any]] = [state.State]
    for each in found:
        found += each.__subclasses__()
    # a user's own states are no business of the page
    return (each for each in found if each.__module__ == state.__name__)


def _states_css() -> str:
    return "".join(f'[data-state="{each.__name__}"] {{ --state: {each.color}; }}\n' for each in _states())


def _states_js() -> str:
    """What Prefect says of its states."""

    def names(kind: str) -> str:
        from prefect.engine import state

        return json.dumps([each.__name__ for each in _states() if issubclass(each, getattr(state, kind))])

    return f"export const FINISHED = new Set({names('Finished')});\nexport const FAILED = new Set({names('Failed')});\n"
