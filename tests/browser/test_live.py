"""The live page, on a backend whose flow runs advance."""

import re
from pathlib import Path
from typing import Any, Dict, List, Optional

import pendulum
import prefect
import pytest
import requests
from driven import DrivenRun, mapped
from many import insert_logs, map_over_many
from playwright.sync_api import Dialog, Locator, Page, expect
from prefect import Flow, Task
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Running, Scheduled, Skipped, Success
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import ApiKey, Backend, tables
from prefect_taskrun_tasks.server.clock import now
from prefect_taskrun_tasks.views import Deferral

#: Headless, no page is ever hidden
SEEN = """isSeen => {
    Object.defineProperty(document, "hidden", { value: !isSeen, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def run_of(name: str = "nightly", tasks: List[str] = ["extract", "load"], **options: Any) -> DrivenRun:  # noqa: B006
    return DrivenRun(Flow(name, tasks=[Task(each) for each in tasks]), **options)


def running(**options: Any) -> DrivenRun:
    return run_of(**options).enter(Running())


def child_of(parent: DrivenRun, task_run_id: Optional[str] = None, **options: Any) -> DrivenRun:
    lineage = {"parent_flow_run_id": parent.id, "parent_task_run_id": task_run_id}
    return run_of("child", context={"prefect_taskrun_tasks": lineage}, **options)


def address(backend: Backend, run: DrivenRun, part: str = "") -> str:
    return f"{backend.url}/default/flow-run/{run.id}{part}"


def row(page: Page, name: str) -> Locator:
    return page.locator(".row").filter(has=page.locator(".name", has_text=re.compile(f"^{re.escape(name)}$")))


def facts_of(page: Page) -> Dict[str, str]:
    """What the heading tells of a run."""
    terms, values = (page.locator(f".heading {tag}").all_text_contents() for tag in ("dt", "dd"))
    return dict(zip(terms, values))


def test_the_address_that_prefect_tells_is_that_of_the_flow_run(backend: Backend, page: Page) -> None:
    run = run_of(run_name="spirited-otter")
    with set_temporary_config({"server.ui.endpoint": backend.url}):
        url = prefect.Client().get_cloud_url("flow-run", run.id)
    page.goto(url)
    expect(page.get_by_role("heading", level=1)).to_contain_text("spirited-otter")
    expect(page).to_have_title("spirited-otter: Scheduled")


def test_a_flow_run_that_advances_is_shown_as_it_is(backend: Backend, page: Page) -> None:
    run = run_of()
    page.goto(address(backend, run))
    expect(row(page, "extract-1").locator(".unstarted")).to_have_text("Pending")
    run.enter(Running())
    run.task_enters("extract-1", Running())
    expect(row(page, "extract-1").locator(".bar")).to_be_visible()
    expect(row(page, "extract-1")).to_have_attribute("data-state", "Running")
    run.task_enters("extract-1", Success())
    expect(row(page, "extract-1")).to_have_attribute("data-state", "Success")
    run.enter(Failed("It did not work."))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Failed")
    expect(page.locator(".heading")).to_contain_text("It did not work.")


def test_a_wait_without_a_process_is_shown_as_deferred_and_what_for(backend: Backend, page: Page) -> None:
    run, child = running(), running(name="child", run_name="awaited")
    run.task_enters("load-1", Running())
    message = f"Waiting for flow run 'awaited' ({child.id}) since 2026-11-25 01:02:03 UTC, without a process."
    context = Deferral(child.id, now()).as_context()
    later = pendulum.now("utc").add(minutes=1)
    task_run_id = run.task_enters("load-1", Scheduled(message, start_time=later, context=context))
    page.goto(address(backend, run))
    expect(row(page, "load-1")).to_have_attribute("data-state", "Deferred")
    page.goto(f"{backend.url}/default/task-run/{task_run_id}")
    expect(page.get_by_text("Deferred", exact=True).first).to_be_visible()
    expect(page.get_by_text(message).first).to_be_visible()


def test_a_mapped_task_run_is_shown_from_the_start_of_its_first_child_to_the_end_of_its_last(
    backend: Backend, page: Page
) -> None:
    run = running()
    parent = run.task_enters("extract-1", mapped(2))
    run.task_enters("extract-1", Running(), 0)
    page.goto(f"{backend.url}/default/task-run/{parent}")
    expect(page.locator(".heading")).to_contain_text("Started")
    assert "Ended" not in facts_of(page)
    child = run.task_enters("extract-1", Skipped(), 0)
    page.reload()
    expect(page.locator(".heading")).to_contain_text("Ended")
    of_parent = facts_of(page)
    page.goto(f"{backend.url}/default/task-run/{child}")
    expect(page.locator(".heading")).to_contain_text("Map index")
    of_child = facts_of(page)
    for fact in ("Started", "Ended", "Duration"):
        assert of_parent[fact] == of_child[fact]


def test_children_appear_below_the_task_runs_that_created_them(backend: Backend, page: Page) -> None:
    parent = running(run_name="parent")
    task_run_id = parent.task_enters("extract-1", Running())
    before = child_of(parent, task_run_id, run_name="before")
    page.goto(address(backend, parent))
    expect(row(page, "before")).to_have_attribute("aria-level", "2")
    grandchild = child_of(before, run_name="grandchild")
    after = child_of(parent, task_run_id, run_name="after")
    expect(row(page, "after")).to_have_attribute("aria-level", "2")
    expect(row(page, "grandchild")).to_have_attribute("aria-level", "3")
    page.get_by_role("link", name="Tree").click()
    tree = page.locator(".tree")
    for child in (before, after, grandchild):
        expect(tree.locator(f"a[href='/default/flow-run/{child.id}']")).to_be_visible()
    tree.get_by_role("link", name="grandchild").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("grandchild")
    page.locator(".heading").get_by_role("link", name="before").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("before")


def test_the_keyboard_leads_from_a_row_to_its_page(backend: Backend, page: Page) -> None:
    page.goto(address(backend, run_of()))
    expect(row(page, "extract-1")).to_be_visible()
    page.get_by_role("treegrid").focus()
    for key in ("Home", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page).to_have_title("extract-1: Pending")


def test_flow_runs_that_are_no_children_are_not_shown(backend: Backend, page: Page) -> None:
    run = run_of(run_name="mine")
    page.goto(address(backend, run, "#tree"))
    expect(page.locator(".tree")).to_contain_text("mine")
    child_of(run_of(run_name="other"), run_name="not-mine")
    child_of(run, run_name="last")
    expect(page.locator(".tree")).to_contain_text("last")
    expect(page.locator(".tree")).not_to_contain_text("not-mine")


def test_flow_runs_are_listed_newest_first_and_new_ones_appear(backend: Backend, page: Page) -> None:
    first = run_of(run_name="first")
    page.goto(backend.url)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    for number in range(60):
        DrivenRun(first.flow, first.flow_id, run_name=f"run-{number}")
    expect(rows).to_have_count(61)
    expect(rows.first).to_contain_text("run-59")
    first.enter(Running())
    expect(rows.last).to_contain_text("Running")
    page.reload()
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(61)
    expect(page.get_by_role("button", name="Older")).to_be_hidden()
    rows.last.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("first")


def test_task_runs_are_in_a_table_with_pages_and_filters(backend: Backend, page: Page) -> None:
    run = run_of(tasks=["score", "load"])
    map_over_many(backend, run, "score-1", 250, {7: Failed("It broke.")})
    page.goto(address(backend, run, "#task-runs"))
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(100)
    expect(page.locator(".pager")).to_contain_text("252 task runs, page 1 of 3")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Next").click()
    expect(rows).to_have_count(52)
    page.get_by_role("combobox", name="State").select_option("Failed")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("score-1[7]")
    page.get_by_role("combobox", name="State").select_option("")
    page.get_by_role("searchbox").fill("load")
    expect(rows).to_have_count(1)
    rows.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("load-1")


def test_task_runs_that_all_changed_at_one_instant_are_all_there(backend: Backend, page: Page) -> None:
    run = run_of(tasks=["score"])
    map_over_many(backend, run, "score-1", 2_100)
    with backend._database.write() as tx:
        tx.update(tables.task_run, tables.task_run.c.flow_run_id == run.id, updated=now())
    page.goto(address(backend, run, "#task-runs"))
    expect(page.locator(".pager")).to_contain_text("2,101 task runs, page 1 of 22")


def test_logs_are_appended_as_they_come(backend: Backend, page: Page) -> None:
    run = run_of()
    page.goto(address(backend, run, "#logs"))
    expect(page.locator(".logs")).to_contain_text("There are no logs.")
    run.log("The first.")
    expect(page.locator(".entry")).to_have_count(1)
    run.log("<b>The second.</b>", level="ERROR")
    expect(page.locator(".entry").last).to_contain_text("<b>The second.</b>")
    run.log("From before.", timestamp="2020-01-01T00:00:00+00:00")
    expect(page.locator(".entry").first).to_contain_text("From before.")
    expect(page.locator(".entry")).to_have_count(3)


def test_of_huge_logs_the_newest_are_shown_and_older_ones_when_asked_for(backend: Backend, page: Page) -> None:
    run = run_of()
    insert_logs(backend, run, (f"Line {number}.\nAnd more." for number in range(20_000)))
    page.goto(address(backend, run, "#logs"))
    lines = page.locator(".entry")
    expect(lines).to_have_count(500)
    expect(lines.last).to_contain_text("Line 19999.")
    expect(lines.last).to_be_in_viewport()
    page.get_by_role("button", name="Older").click()
    expect(lines).to_have_count(1_000)
    expect(lines.first).to_contain_text("Line 19000.")
    run.log("The last.")
    expect(lines.last).to_contain_text("The last.")


def test_a_task_run_tells_its_states_and_where_its_result_is(backend: Backend, page: Page) -> None:
    run = running()
    task_run_id = run.task_enters("extract-1", Running("Began."))
    page.goto(f"{backend.url}/default/task-run/{task_run_id}")
    rows = page.locator("tbody tr")
    expect(rows.last).to_contain_text("Began.")
    run.task_enters("extract-1", Success("Ended.", result=LocalResult(dir="/kept", location="<i>here</i>")))
    expect(rows.last).to_contain_text("Ended.")
    expect(page.locator(".heading")).to_contain_text("LocalResult")
    expect(page.locator(".heading")).to_contain_text("<i>here</i>")
    run.log("Of the task.", task_run_id=task_run_id)
    run.log("Of the flow.")
    page.reload()
    expect(page.locator(".entry")).to_have_count(1)
    expect(page.locator(".entry")).to_contain_text("Of the task.")
    page.locator(".heading").get_by_role("link").click()
    expect(page).to_have_url(address(backend, run))


@pytest.mark.parametrize("kind", ["flow", "task"])
@pytest.mark.parametrize("id", ["00000000-0000-4000-8000-000000000000", "nonsense", "%3Cscript%3E"])
def test_a_run_that_is_not_there_is_said_to_be_not_there(backend: Backend, page: Page, kind: str, id: str) -> None:
    page.goto(f"{backend.url}/default/{kind}-run/{id}")
    expect(page.locator(".notice")).to_have_text(f"There is no {kind} run {requests.utils.unquote(id)}.")


def test_while_the_backend_is_away_the_page_says_so_and_keeps_what_it_shows(
    tmp_path: Path, page: Page, complaints: List[str]
) -> None:
    database = f"sqlite:///{tmp_path / 'prefect.db'}"
    with Backend(database, port=0) as backend, set_temporary_config(settings(backend.url)):
        run = run_of(run_name="otter")
        page.goto(address(backend, run))
        expect(row(page, "otter")).to_be_visible()
    expect(page.locator(".notice")).to_contain_text("The backend does not answer.")
    expect(row(page, "otter")).to_be_visible()
    port = int(backend.url.rsplit(":", 1)[1])
    with Backend(database, port=port) as backend, set_temporary_config(settings(backend.url)):
        run.client = prefect.Client()
        run.enter(Running())
        expect(row(page, "otter")).to_have_attribute("data-state", "Running")
        expect(page.locator(".notice")).to_be_hidden()
        page.goto("about:blank")
    # what the browser itself says of a connection that is refused
    complaints[:] = [each for each in complaints if "ERR_CONNECTION_REFUSED" not in each]


def test_nothing_is_asked_for_while_nobody_sees_the_page(backend: Backend, page: Page) -> None:
    run = running()
    page.goto(address(backend, run))
    expect(row(page, "extract-1")).to_be_visible()
    page.evaluate(SEEN, False)
    # those under way are still answered
    page.wait_for_load_state("networkidle")
    run.task_enters("extract-1", Running())
    asked: List[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # longer than a pause of the page
    page.evaluate("new Promise(resolve => setTimeout(resolve, 2500))")
    assert asked == []
    page.evaluate(SEEN, True)
    expect(row(page, "extract-1")).to_have_attribute("data-state", "Running")


def test_names_of_runs_are_text(backend: Backend, page: Page) -> None:
    name = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
    parent = run_of(name, run_name=name)
    child_of(parent, run_name=name)
    for part in ("", "#task-runs", "#tree", "#logs"):
        page.goto(address(backend, parent, part))
        expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    page.goto(backend.url)
    expect(page.locator("tbody tr").first).to_contain_text(name)
    assert page.locator("main img, main script").count() == 0


def test_the_page_is_sent_with_headers_that_keep_others_out(backend: Backend) -> None:
    for path in ("/", "/default", "/default/flow-run/x", "/default/task-run/x", "/page/live.js"):
        answer = requests.get(backend.url + path, timeout=20)
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        again = requests.get(backend.url + path, headers={"If-None-Match": answer.headers["ETag"]}, timeout=20)
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/__init__.py", "/page/..%2fapi.py", "/page/%2e%2e/api.py"])
def test_only_the_page_itself_is_sent(backend: Backend, path: str) -> None:
    assert requests.get(backend.url + path, timeout=20).status_code == 404


def test_a_page_asks_for_the_key_until_it_is_right_and_keeps_it_for_the_tab(tmp_path: Path, page: Page) -> None:
    answers = ["wrong", "the-key-of-the-test"]
    asked: List[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept(answers[len(asked) - 1])

    page.on("dialog", answer)
    database = f"sqlite:///{tmp_path / 'prefect.db'}"
    with Backend(database, port=0, api_key=ApiKey("the-key-of-the-test")) as backend, set_temporary_config(
        {**settings(backend.url), "cloud.api_key": "the-key-of-the-test"}
    ):
        run = run_of(run_name="otter")
        page.goto(address(backend, run))
        expect(row(page, "otter")).to_be_visible()
        assert asked == ["The backend's API key:", "The backend has another API key. Its key:"]
        page.reload()
        expect(row(page, "otter")).to_be_visible()
        assert len(asked) == 2
        page.goto("about:blank")


def test_who_has_no_key_is_asked_once_and_told_what_is_missing(tmp_path: Path, page: Page) -> None:
    asked: List[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    with Backend(f"sqlite:///{tmp_path / 'prefect.db'}", port=0, api_key=ApiKey("the-key-of-the-test")) as backend:
        page.goto(backend.url)
        expect(page.locator(".notice")).to_contain_text("needs a key")
        # it has been asked again in the meantime
        page.wait_for_timeout(3000)
        assert len(asked) == 1
        page.goto("about:blank")
