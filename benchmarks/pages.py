"""The timeline of 5,000 task runs in a headless Chromium on one core: size, seconds until it is drawn, zooming."""

import os
import random
import shutil
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Dict, Iterator, List

from playwright.sync_api import Browser, sync_playwright

from prefect_taskrun_tasks.page import timeline_file

#: Task runs; these many of them are mapped
TASK_RUNS, MAPPED = 5_000, 4_700

#: Times that the file is opened
OPENED = 7

#: Frames in which it zooms, in and out again
FRAMES = 300

#: Pictures to open, by what is seen of them
SEEN = {"mapped, closed": True, "unmapped": False}

# a wheel event before each frame; what counts is when the browser gets round to the next
ZOOM = """frames => new Promise(resolve => {
    const chart = document.querySelector(".chart"), { right, top } = chart.getBoundingClientRect(), times = [];
    const zoom = now => {
        times.push(now);
        if (times.length > frames) return resolve(times.slice(1).map((time, index) => time - times[index]));
        const deltaY = times.length % 100 < 50 ? -25 : 25;
        chart.dispatchEvent(new WheelEvent("wheel", {
            deltaY, ctrlKey: true, clientX: right - 400, clientY: top + 100, bubbles: true, cancelable: true,
        }));
        requestAnimationFrame(zoom);
    };
    requestAnimationFrame(zoom);
})"""


def picture(is_mapped: bool) -> Dict[str, Any]:
    """Of a flow run whose task runs began one after the other, 64 at a time."""
    chance, start = random.Random(1), 1_700_000_000_000
    ends = [start] * 64
    task_runs: List[List[Any]] = [["0" * 36, "score-1", -1, "Mapped", "Ready to proceed with mapping.", start, start]]
    for index in range(1, TASK_RUNS):
        begin = min(ends)
        end = ends[ends.index(begin)] = begin + chance.randrange(500, 30_000)
        state = "Failed" if chance.random() < 0.01 else "Success"
        slug, map_index = ("score-1", index) if is_mapped and index < MAPPED else (f"transform_orders-{index}", -1)
        task_runs.append([f"{index:036}", slug, map_index, state, "Task run succeeded.", begin, end])
    flow_run = {"id": "1" * 36, "name": "otter", "flow": "nightly", "state": "Success", "message": None}
    return {
        "taken_at": max(ends),
        "flow_runs": [{**flow_run, "start": start, "end": max(ends)}],
        "task_runs": task_runs,
    }


@contextmanager
def one_core() -> Iterator[None]:
    """For processes that are started in this block."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def measure(browser: Browser, path: Path) -> Dict[str, float]:
    drawn: List[float] = []
    for _ in range(OPENED):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.as_uri())
        page.locator(".chart[aria-busy=false]").wait_for()
        drawn.append(page.evaluate("performance.getEntriesByName('drawn')[0].startTime"))
        if len(drawn) < OPENED:
            page.close()
    frames: List[float] = page.evaluate(ZOOM, FRAMES)
    page.close()
    return {
        "mb": round(path.stat().st_size / 1e6, 2),
        "seconds_until_drawn": round(median(drawn) / 1000, 3),
        "frame_ms_median": round(median(frames), 1),
        "frame_ms_p95": round(quantiles(frames, n=20)[-1], 1),
        "frames_per_second": round(1000 * len(frames) / sum(frames), 1),
    }


def run(directory: Path) -> Dict[str, Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit("Chromium is not installed (on Debian: apt-get install chromium).")
    figures: Dict[str, Any] = {}
    with one_core(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name, is_mapped in SEEN.items():
            file = directory / "timeline.html"
            file.write_text(timeline_file(picture(is_mapped)), "utf-8")
            figures[name] = measure(browser, file)
            print(f"  {name}: {figures[name]}", flush=True)
        browser.close()
    return {"ours": figures}
