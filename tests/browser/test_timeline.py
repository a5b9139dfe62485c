"""The timeline in a file, as a browser draws it."""

import re
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from conftest import eventually
from playwright.sync_api import Locator, Page, expect

from prefect_taskrun_tasks.page import timeline_file

from .pictures import START, flow_run, mapped, picture, task_run

Show = Callable[..., Page]

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "&lt;b&gt; &amp; {{7*7}} ${7*7}",
    "line\u2028and\u2029paragraph",
    "bell\x07 escape\x1b[31m nul\x00 tab\t",
    "\u202egnp.exe",
    "half a pair \ud83d",
    "x" * 1_000,
]


@pytest.fixture
def show(tmp_path: Path, new_page: Callable[..., Page]) -> Show:
    """Opens the file of a picture."""

    def show(picture: Dict[str, Any], **options: Any) -> Page:
        path = tmp_path / "timeline.html"
        path.write_text(timeline_file(picture), "utf-8")
        page = new_page(**options)
        page.goto(path.as_uri())
        expect(page.get_by_role("treegrid")).to_have_attribute("aria-busy", "false")
        return page

    return show


def row(page: Page, name: str) -> Locator:
    return page.locator(".row").filter(has=page.locator(".name", has_text=re.compile(f"^{re.escape(name)}$")))


def bars(page: Page) -> Locator:
    return page.locator(".bar:visible")


def names(page: Page) -> List[str]:
    """From top to bottom."""
    rows = page.locator(".row").evaluate_all(
        "rows => rows.map(row => [Number(row.ariaRowIndex), row.querySelector('.name').textContent])"
    )
    return [name for _, name in sorted(rows)]


def width(bar: Locator) -> float:
    box = bar.bounding_box()
    assert box
    return box["width"]


def press(page: Page, *keys: str) -> None:
    page.locator(".chart").focus()
    for key in keys:
        page.keyboard.press(key)


def test_rows_are_in_the_order_of_their_start_and_have_bars_of_their_length(show: Show) -> None:
    page = show(
        picture([task_run("load-1", 20, 50), task_run("extract-1", 0, 15), task_run("clean-1", None, None, "Pending")])
    )
    expect(bars(page)).to_have_count(3)
    assert names(page) == ["otter", "extract-1", "load-1", "clean-1"]
    lengths = [width(row(page, name).locator(".bar")) for name in ("otter", "extract-1", "load-1")]
    assert lengths[1] / lengths[0] == pytest.approx(15 / 60, rel=0.01)
    assert lengths[2] / lengths[0] == pytest.approx(30 / 60, rel=0.01)


def test_a_task_run_that_has_not_started_has_a_state_and_no_bar(show: Show) -> None:
    page = show(picture([task_run("clean-1", None, None, "Pending")]))
    expect(row(page, "clean-1").locator(".unstarted")).to_have_text("Pending")
    expect(row(page, "clean-1").locator(".bar")).to_be_hidden()


def test_bars_of_unfinished_runs_end_when_the_picture_was_taken(show: Show) -> None:
    # one that has been retried keeps the end of its first try
    page = show(
        picture([task_run("a-1", 10, 20, "Running"), task_run("b-1", 0, 40)], taken_after=40, end=None, state="Running")
    )
    running, finished = row(page, "a-1"), row(page, "b-1")
    assert width(running.locator(".bar")) / width(finished.locator(".bar")) == pytest.approx(30 / 40, rel=0.01)
    expect(running).to_have_class(re.compile("running"))
    expect(finished).not_to_have_class(re.compile("running"))


def test_colours_are_those_of_prefects_states(show: Show) -> None:
    page = show(picture([task_run("a-1", 0, 9, "Failed")]))
    expect(row(page, "a-1").locator(".bar")).to_have_css("background-color", "rgb(235, 0, 0)")
    expect(row(page, "otter").locator(".bar")).to_have_css("background-color", "rgb(40, 167, 69)")


def test_the_tooltip_tells_what_is_known_of_a_run(show: Show) -> None:
    page = show(picture([task_run("a-1", 1, 3.5, "Failed", message="Error: no such file")]), timezone_id="UTC")
    row(page, "a-1").locator(".bar").hover()
    tooltip = page.get_by_role("tooltip")
    for text in ("a-1", "Failed", "Error: no such file", "14 Nov 2023, 22:13:21", "2.50 s", "id of a-1"):
        expect(tooltip).to_contain_text(text)
    page.mouse.move(5, 5)
    expect(tooltip).to_be_hidden()


def test_few_children_of_a_mapped_task_are_open_at_first_and_many_are_closed(show: Show) -> None:
    page = show(picture([*mapped("few-1", 20), *mapped("many-1", 21)]))
    expect(row(page, "few-1")).to_have_attribute("aria-expanded", "true")
    expect(row(page, "few-1[19]")).to_have_attribute("aria-level", "2")
    expect(row(page, "many-1")).to_have_attribute("aria-expanded", "false")
    expect(row(page, "many-1[0]")).to_have_count(0)


def test_a_click_opens_and_closes_a_mapped_task(show: Show) -> None:
    page = show(picture(mapped("many-1", 21)))
    row(page, "many-1").locator(".graph").click()
    expect(row(page, "many-1[0]")).to_be_visible()
    row(page, "many-1").locator(".label").click()
    expect(row(page, "many-1[0]")).to_have_count(0)


def test_a_closed_mapped_task_shows_how_many_ran_at_once_and_what_failed(show: Show) -> None:
    page = show(picture(mapped("many-1", 5_000, failing=[2_500])))
    graph = row(page, "many-1").locator(".graph")
    expect(graph).to_have_attribute("aria-label", re.compile("many-1: Mapped, 1 min 19 s, 5,000 children, 1 failed"))
    expect(graph.locator("path")).to_have_count(2)
    boxes = {
        state: graph.locator(f"path[data-state={state}]").evaluate(
            "path => path.getBBox().toJSON?.() ?? {width: path.getBBox().width, height: path.getBBox().height}"
        )
        for state in ("Success", "Failed")
    }
    assert boxes["Success"]["height"] == pytest.approx(46, abs=1)
    # one of 64 that ran at once would be less than a pixel
    assert boxes["Failed"]["height"] >= 3


def test_child_flow_runs_are_below_the_task_runs_that_created_them(show: Show) -> None:
    child = flow_run("child", "child", parent_flow_run_id="flow-run", parent_task_run_id="id of create-1")
    grandchild = flow_run("grandchild", "grandchild", parent_flow_run_id="child", parent_task_run_id="of the child")
    page = show(picture([task_run("create-1", 0, 1), task_run("after-1", 2, 3)], grandchild, child))
    assert names(page) == ["otter", "create-1", "child", "grandchild", "after-1"]
    levels = page.locator(".row").evaluate_all("rows => rows.map(row => Number(row.ariaLevel))")
    assert sorted(levels) == [1, 1, 1, 2, 3]


def test_flow_runs_that_say_that_they_are_each_others_children_end_nothing(show: Show) -> None:
    a = flow_run("a", "a", parent_flow_run_id="b")
    b = flow_run("b", "b", parent_flow_run_id="a")
    page = show(picture([task_run("load-1", 0, 1)], a, b, flow_run("c", "c", parent_flow_run_id="c")))
    expect(row(page, "load-1")).to_be_visible()


def test_it_is_used_with_the_keyboard_alone(show: Show) -> None:
    page = show(picture([*mapped("many-1", 21), task_run("last-1", 30, 40)]))
    chart, details = page.locator(".chart"), page.locator(".details")
    press(page, "ArrowDown", "ArrowDown")
    expect(row(page, "many-1")).to_have_attribute("aria-selected", "true")
    expect(chart).to_have_attribute("aria-activedescendant", row(page, "many-1").get_attribute("id") or "?")
    expect(details).to_contain_text("21 Success")
    press(page, "ArrowRight")
    expect(row(page, "many-1[0]")).to_be_visible()
    press(page, "ArrowRight")
    expect(row(page, "many-1[0]")).to_have_attribute("aria-selected", "true")
    press(page, "ArrowLeft", "ArrowLeft")
    expect(row(page, "many-1[0]")).to_have_count(0)
    press(page, "Enter")
    expect(row(page, "many-1[0]")).to_be_visible()
    press(page, "End")
    expect(row(page, "last-1")).to_have_attribute("aria-selected", "true")
    press(page, "Home")
    expect(row(page, "otter")).to_have_attribute("aria-selected", "true")


def test_zooming_makes_bars_longer_and_fit_shows_all_again(show: Show) -> None:
    page = show(picture([task_run("a-1", 25, 35)]))
    bar = row(page, "a-1").locator(".bar")
    before = width(bar)

    def is_times(factor: float) -> None:
        eventually(lambda: abs(width(bar) - before * factor) < 2)

    press(page, "+")
    is_times(2)
    press(page, "-")
    is_times(1)
    page.get_by_role("button", name="Zoom in").click()
    is_times(2)
    page.get_by_role("button", name="Show all").click()
    is_times(1)
    press(page, "+", "0")
    is_times(1)
    bar.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    is_times(2.718**0.5)


def test_zooming_leaves_in_its_place_what_the_pointer_is_on(show: Show) -> None:
    page = show(picture([task_run("a-1", 40, 50)]))
    bar = row(page, "a-1").locator(".bar")
    box = bar.bounding_box()
    assert box
    page.mouse.move(box["x"], box["y"] + 5)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    eventually(lambda: width(bar) > box["width"] + 1)
    after = bar.bounding_box()
    assert after
    assert after["x"] == pytest.approx(box["x"], abs=1)


def test_dragging_pans_and_is_no_click(show: Show) -> None:
    page = show(picture(mapped("many-1", 60, at_once=1)))
    press(page, "+", "+")
    ticks = page.locator(".tick")
    expect(ticks.first).not_to_have_text("0")
    graph = row(page, "many-1").locator(".graph")
    for _ in range(3):
        box = graph.bounding_box()
        assert box
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 20, steps=5)
        page.mouse.up()
    expect(ticks.first).to_have_text("0")
    expect(row(page, "many-1")).to_have_attribute("aria-expanded", "false")


def test_two_fingers_zoom(show: Show) -> None:
    page = show(picture([task_run("a-1", 25, 35)]), has_touch=True)
    bar = row(page, "a-1").locator(".bar")
    before = width(bar)
    box = row(page, "a-1").locator(".track").bounding_box()
    assert box
    middle, y = box["x"] + box["width"] / 2, box["y"] + 5
    touch = page.context.new_cdp_session(page)
    for kind, apart in [("touchStart", 100), ("touchMove", 150), ("touchMove", 200), ("touchEnd", None)]:
        points = [] if apart is None else [{"x": middle + side * apart / 2, "y": y, "id": side} for side in (-1, 1)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    eventually(lambda: width(bar) == pytest.approx(2 * before, rel=0.05))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.42, "420 ms"),
        (9.994, "9.99 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min"),
        (125, "2 min 5 s"),
        (3_599.6, "1 h"),
        (3_840, "1 h 4 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_short_words(show: Show, seconds: float, text: str) -> None:
    page = show(picture([task_run("a-1", 0, seconds)]))
    expect(row(page, "a-1").locator(".time")).to_have_text(text)


@pytest.mark.parametrize(
    ("seconds", "texts"),
    [
        (0.05, ["0", "0.01 s", "0.02 s"]),
        (60, ["0", "10 s", "20 s"]),
        (300, ["0", "1 min", "2 min"]),
        (900, ["0", "2 min", "4 min"]),
        (86_400, ["0", "3 h", "6 h"]),
        (86_400_000, ["0", "182 d", "364 d"]),
    ],
)
def test_ticks_are_round_numbers_of_elapsed_time(show: Show, seconds: float, texts: List[str]) -> None:
    page = show(picture([task_run("a-1", 0, seconds)], end=START + int(1000 * seconds)))
    assert page.locator(".tick").all_text_contents()[:3] == texts


def test_the_filter_keeps_what_matches_and_what_it_is_in(show: Show) -> None:
    page = show(picture([*mapped("score-1", 30), task_run("load-1", 0, 1)]))
    page.get_by_role("searchbox").fill("SCORE-1[29]")
    expect(row(page, "score-1[29]")).to_be_visible()
    assert names(page) == ["otter", "score-1", "score-1[29]"]
    page.get_by_role("searchbox").fill("")
    expect(row(page, "load-1")).to_be_visible()


def test_the_legend_counts_states_and_shows_only_one(show: Show) -> None:
    page = show(picture([*mapped("score-1", 30, failing=[7]), task_run("load-1", 0, 1)]))
    failed = page.get_by_role("button", name="Failed")
    expect(failed).to_have_text("Failed1")
    expect(page.get_by_role("button", name="Success")).to_have_text("Success30")
    failed.click()
    expect(failed).to_have_attribute("aria-pressed", "true")
    expect(row(page, "score-1[7]")).to_be_visible()
    assert names(page) == ["otter", "score-1", "score-1[7]"]
    failed.click()
    expect(row(page, "load-1")).to_be_visible()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_users_have_named_is_text(show: Show, text: str) -> None:
    child = flow_run(text, "child", flow=text, message=text, parent_task_run_id=task_run(text)[0])
    page = show(picture([task_run(text, 1, 2, message=text)], child, name=text, flow=text, message=text))
    # half of a pair does not come back from the browser as it is, by older versions of its driver
    shown = (text, text.encode("utf-8", "replace").decode().replace("?", "\ufffd"))
    assert set(names(page)) <= set(shown)
    assert len(names(page)) == 3
    page.locator(".row .bar").nth(1).hover()
    assert page.get_by_role("tooltip").locator("dd").first.text_content() in shown
    assert page.locator(".row .name").first.evaluate("name => name.children.length") == 0
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_state_that_prefect_does_not_have_is_grey(show: Show) -> None:
    page = show(picture([task_run("a-1", 0, 9, '"] <b>')]))
    expect(row(page, "a-1").locator(".bar")).to_have_css("background-color", "rgb(105, 105, 105)")


def test_it_is_dark_where_the_user_wants_it_dark(show: Show) -> None:
    run = picture([task_run("a-1", 0, 9)])
    expect(show(run, color_scheme="dark").locator("body")).to_have_css("background-color", "rgb(20, 23, 28)")
    expect(show(run, color_scheme="light").locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")


def test_nothing_moves_where_the_user_wants_it_still(show: Show) -> None:
    run = picture([task_run("a-1", 0, None, "Running")])
    animation = "getComputedStyle(document.querySelectorAll('.bar')[1], '::after').animationName"
    assert show(run, reduced_motion="reduce").evaluate(animation) == "none"
    assert show(run, reduced_motion="no-preference").evaluate(animation) == "breathe"


def test_it_can_be_used_in_a_narrow_window(show: Show) -> None:
    page = show(
        picture([*mapped("score-1", 30, failing=[7]), task_run("load-1", 0, 1)]), viewport={"width": 360, "height": 640}
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = row(page, "load-1").locator(".track").bounding_box()
    assert box
    assert box["width"] > 150


def test_only_what_is_in_sight_is_in_the_document(show: Show) -> None:
    page = show(picture([task_run(f"task-{index}", index / 100, index / 100 + 1) for index in range(5_000)]))
    assert page.locator(".row").count() < 40
    press(page, "End")
    expect(row(page, "task-4999")).to_be_visible()
    assert page.locator(".row").count() < 40


def test_a_flow_run_of_which_nothing_has_started_is_drawn(show: Show) -> None:
    page = show(picture([task_run("a-1", None, None, "Pending")], state="Scheduled", start=None, end=None))
    expect(row(page, "otter").locator(".unstarted")).to_have_text("Scheduled")
    expect(bars(page)).to_have_count(0)


def test_the_file_of_5000_task_runs_is_smaller_than_two_megabytes() -> None:
    """With messages as long as they may be."""
    runs = [
        [
            f"00000000-0000-4000-8000-{index:012}",
            "transform_orders-1",
            index,
            "TriggerFailed",
            "m" * 200,
            START,
            START + index,
        ]
        for index in range(5_000)
    ]
    assert len(timeline_file(picture(runs)).encode()) < 2_000_000
