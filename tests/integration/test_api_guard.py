"""Who may use the API: with a key, from which machine, and from which pages."""

import os
import re
import socket
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import prefect
import pytest
import requests
from prefect.exceptions import AuthorizationError
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import ApiKey, ApiKeyUnusable, Backend, Unguarded

KEY = "fq0nxw-3tM_8fq0nxw"


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'guarded.db'}"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.endpoint.WRONG_KEY", 0.0)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Backend]:
    with Backend(url(tmp_path), port=0, api_key=ApiKey(KEY)) as backend:
        yield backend


def ask(backend: Backend, headers: Optional[Dict[str, str]] = None, query: Any = "{ hello }") -> "requests.Response":
    return requests.post(backend.url, json={"query": query}, headers=headers, timeout=20)


@pytest.mark.parametrize("authorization", [f"Bearer {KEY}", f"bearer {KEY}"])
def test_who_knows_the_key_is_answered(guarded: Backend, authorization: str) -> None:
    assert ask(guarded, {"Authorization": authorization}).json() == {"data": {"hello": "👋"}}


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", "Bearer k\xe9y"],
)
def test_who_does_not_know_the_key_is_refused(guarded: Backend, authorization: Optional[str]) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = ask(guarded, headers, 'mutation { create_tenant(input: {name: "x", slug: "x"}) { id } }').json()
    assert list(answer) == ["errors"]
    assert answer["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    tenants = ask(guarded, {"Authorization": f"Bearer {KEY}"}, "{ tenant { slug } }").json()["data"]["tenant"]
    assert tenants == [{"slug": "default"}]


@pytest.mark.parametrize("path", ["/", "/graphql", "/graphql/"])
def test_every_address_of_the_api_needs_the_key(guarded: Backend, path: str) -> None:
    answer = requests.post(guarded.url + path, json={"query": "{ hello }"}, timeout=20)
    assert "UNAUTHENTICATED" in answer.text


def test_a_large_body_without_the_key_is_refused_in_words(guarded: Backend) -> None:
    answer = requests.post(
        guarded.url, data=b" " * 50_000_000, headers={"Content-Type": "application/json"}, timeout=20
    )
    assert "UNAUTHENTICATED" in answer.text


@pytest.mark.parametrize("path", ["/health", "/", "/page/backend.js", "/default/flow-run/x"])
def test_health_and_the_page_need_no_key(guarded: Backend, path: str) -> None:
    assert requests.get(guarded.url + path, timeout=20).status_code == 200


@pytest.mark.parametrize("key", [None, "another"])
def test_prefects_client_raises_an_authorization_error_without_the_key(guarded: Backend, key: Optional[str]) -> None:
    with set_temporary_config({**settings(guarded.url), "cloud.api_key": key}):
        said = "not this API's key" if key else "needs a key"
        with pytest.raises(AuthorizationError, match=f"{said}.*PREFECT__CLOUD__API_KEY"):
            prefect.Client().graphql("{ hello }")
        with pytest.raises(AuthorizationError, match="PREFECT__CLOUD__API_KEY"):
            FlowRunView.from_flow_run_id("00000000-0000-0000-0000-000000000000")


def test_prefects_client_with_the_key_registers_and_creates_runs(guarded: Backend) -> None:
    with set_temporary_config({**settings(guarded.url), "cloud.api_key": KEY}):
        client = prefect.Client()
        client.create_project("p")
        run_id = client.create_flow_run(flow_id=prefect.Flow("f").register("p", no_url=True))
        assert FlowRunView.from_flow_run_id(run_id).flow_run_id == run_id


def test_the_key_is_in_no_log_and_no_answer(guarded: Backend, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        texts = [ask(guarded, {"Authorization": f"Bearer {given}"}).text for given in (KEY, "wr0ng-k3y")]
    texts += [caplog.text, repr(ApiKey(KEY)), str(vars(guarded))]
    assert not re.search(f"{KEY}|wr0ng-k3y", "".join(texts))


@pytest.mark.parametrize("host", ["0.0.0.0", "", "example.invalid"])
def test_another_address_than_this_machines_own_needs_a_key(tmp_path: Path, host: str) -> None:
    with pytest.raises(Unguarded, match="--api-key-file"):
        Backend(url(tmp_path), host, port=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"api_key": ApiKey(KEY)}, {"unguarded": True, "allowed_hosts": ["Backend.Example"]}]
)
def test_with_a_key_or_unguarded_other_machines_are_answered(tmp_path: Path, options: Any) -> None:
    with Backend(url(tmp_path), "0.0.0.0", port=0, **options) as backend:
        headers = {"Host": "backend.example", "Authorization": f"Bearer {KEY}"}
        assert ask(backend, headers).json() == {"data": {"hello": "👋"}}


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost", 200),
        ("localhost:4200", 200),
        (socket.gethostname(), 200),
        ("10.1.2.3:4200", 200),
        ("[fe80::1]:4200", 200),
        ("rebound.example", 400),
        ("rebound.example:4200", 400),
        ("10.1.2.3.rebound.example", 400),
        ("", 400),
    ],
)
def test_an_unguarded_backend_is_not_answered_by_the_name_of_a_page_elsewhere(
    tmp_path: Path, name: str, status: int
) -> None:
    """DNS rebinding: the page's own name leads here, and a browser would let it read and write."""
    with Backend(url(tmp_path), "0.0.0.0", port=0, unguarded=True) as backend:
        answer = ask(backend, {"Host": name})
        assert answer.status_code == status
        assert ("--allowed-host" in answer.text) == (status == 400)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.9", "::1"])
def test_this_machines_own_addresses_need_no_key(tmp_path: Path, host: str) -> None:
    with Backend(url(tmp_path), host, port=0) as backend:
        assert ask(backend).json() == {"data": {"hello": "👋"}}
        assert ask(backend, {"Host": "rebound.example"}).status_code == 400


def write_key(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_key_is_read_from_a_file_without_the_end_of_its_line(tmp_path: Path) -> None:
    key = ApiKey.of_file(write_key(tmp_path, f"{KEY}\n"))
    assert key.is_in({"authorization": f"Bearer {KEY}"})


def test_wrong_keys_are_slowed_down_and_told_of_once_a_minute(
    guarded: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.endpoint.WRONG_KEY", 0.3)
    begun = time.monotonic()
    for _ in range(3):
        assert "UNAUTHENTICATED" in ask(guarded, {"Authorization": "Bearer another"}).text
    metrics = requests.get(f"{guarded.url}/metrics", headers={"Authorization": "Bearer another"}, timeout=20)
    assert metrics.status_code == 401
    assert time.monotonic() - begun >= 4 * 0.3
    assert [record.getMessage() for record in caplog.records] == [
        "Requests without the right API key: 1, the last one from 127.0.0.1"
    ]


def test_a_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ApiKeyUnusable, match="has 15 characters, and needs 16"):
        ApiKey("k" * 15)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_key_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ApiKeyUnusable, match="chmod 600"):
        ApiKey.of_file(write_key(tmp_path, KEY, mode))


@pytest.mark.parametrize(("text", "why"), [("", "empty"), (" \n", "empty"), ("a b", "one word"), ("k\xe9y", "ASCII")])
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ApiKeyUnusable, match=why) as caught:
        ApiKey.of_file(write_key(tmp_path, text))
    assert not text.strip() or text not in str(caught.value)


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ApiKeyUnusable, match=re.escape(os.fspath(path))):
            ApiKey.of_file(path)


ORIGIN = "https://runs.example"


def preflight(backend: Backend, origin: str, headers: str = "content-type,authorization") -> "requests.Response":
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    return requests.options(backend.url + "/graphql", headers=asked, timeout=20)


def test_pages_of_other_sites_are_kept_out(guarded: Backend) -> None:
    assert not preflight(guarded, ORIGIN).ok
    answer = ask(guarded, {"Origin": ORIGIN, "Authorization": f"Bearer {KEY}"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_pages_of_a_site_that_was_named_are_let_in_and_no_others(tmp_path: Path) -> None:
    origins = ["https://other.example", ORIGIN]
    with Backend(url(tmp_path), port=0, api_key=ApiKey(KEY), cors_origins=origins) as backend:
        allowed = preflight(backend, ORIGIN)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "POST" in allowed.headers["access-control-allow-methods"]
        names = {each.strip().lower() for each in allowed.headers["access-control-allow-headers"].split(",")}
        assert {"content-type", "authorization"} <= names
        assert not preflight(backend, "https://runs.example.evil").ok
        # whoever asks, the page needs the key, and can read that it does
        answer = ask(backend, {"Origin": ORIGIN})
        assert "UNAUTHENTICATED" in answer.text
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-origin" not in ask(backend, {"Origin": "https://evil.example"}).headers


def test_with_a_key_a_proxy_on_this_machine_may_name_another(guarded: Backend) -> None:
    """No page that was made to lead here knows the key."""
    headers = {"Host": "prefect.example", "Authorization": f"Bearer {KEY}"}
    assert ask(guarded, headers).json() == {"data": {"hello": "👋"}}
