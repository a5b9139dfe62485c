import { isId, rows } from "./backend.js";
import { element, fill, mark, stateOf } from "./element.js";
import { Family } from "./family.js";
import { follow } from "./follow.js";
import { heading } from "./heading.js";
import { flowRunHref, link, taskRunHref } from "./links.js";
import { Logs } from "./logs.js";
import { TaskRuns } from "./task_runs.js";
import { Timeline } from "./timeline.js";

/** Milliseconds between two looks: while something runs, and when all has finished, for it may be restarted */
const PAUSE = 1_000;
const FINISHED_PAUSE = 10_000;

/** One flow run: its timeline, task runs, children and logs. */
export function flowRunPage(main, notice, id) {
  const family = new Family(id);
  const parts = {
    timeline: timeline(),
    "task-runs": taskRuns(),
    tree: tree(family),
    logs: logs(family, () => wake()),
  };
  const titles = { timeline: "Timeline", "task-runs": "Task runs", tree: "Tree", logs: "Logs" };
  const head = element("div");
  const tabs = Object.entries(titles).map(([part, title]) => element("a", { href: `#${part}` }, title));
  const bar = element("div", { class: "tabs", role: "navigation", "aria-label": "Parts", hidden: "" }, ...tabs);
  main.append(head, bar, ...Object.values(parts).map(({ place }) => place));
  let parent;

  const chosen = () => parts[location.hash.slice(1)] ?? parts.timeline;
  const choose = () => {
    for (const part of Object.values(parts)) part.place.hidden = part !== chosen();
    for (const tab of tabs) mark(tab, "aria-current", parts[tab.hash.slice(1)] === chosen() ? "page" : null);
  };
  const look = async () => {
    await family.look();
    const picture = family.picture();
    const [shown] = picture.flow_runs;
    parent ??= isId(shown.parent_flow_run_id)
      ? await rows("flow_run", { where: { id: { _eq: shown.parent_flow_run_id } } })
      : [];
    document.title = `${shown.name}: ${shown.state}`;
    const above = parent.map((each) => ["Parent", link(flowRunHref(each.id), each.name ?? each.id)]);
    fill(head, heading(shown, picture.taken_at, ...above));
    bar.hidden = false;
    await chosen().show(picture);
    return family.isFinished ? FINISHED_PAUSE : PAUSE;
  };
  choose();
  const wake = follow(look, notice);
  addEventListener("hashchange", () => {
    choose();
    wake();
  });
}

function timeline() {
  const place = element("div", { class: "part" });
  const href = (row) => (row.kind === "flow run" ? flowRunHref : taskRunHref)(row.id);
  let drawn;
  const show = (picture) => {
    drawn ??= new Timeline(place, { href });
    drawn.show(picture);
  };
  return { place, show };
}

function taskRuns() {
  const table = new TaskRuns();
  return { place: table.element, show: (picture) => table.show(picture) };
}

function tree(family) {
  const place = element("div", { class: "part scrolls tree" });
  const branch = (run, above) => {
    const children = family.childrenOf(run).filter((child) => !above.includes(child));
    const title = element("p", {}, link(flowRunHref(run.id), run.name ?? run.id), stateOf(run.state));
    const below = children.map((child) => branch(child, [...above, run]));
    return element("li", {}, title, ...(below.length ? [element("ul", {}, ...below)] : []));
  };
  return { place, show: () => fill(place, element("ul", {}, branch(family.shown, []))) };
}

function logs(family, wake) {
  const lines = new Logs(() => ({ flow_run_id: { _eq: family.id } }), wake);
  return { place: lines.element, show: () => lines.look() };
}
