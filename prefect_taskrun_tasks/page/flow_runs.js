import { EPOCH, changes, merge, milliseconds, newest, overlapping, rows } from "./backend.js";
import { element, fill, name, stateOf } from "./element.js";
import { follow } from "./follow.js";
import { flowRunHref, link } from "./links.js";
import { table } from "./table.js";
import { endOf } from "./times.js";
import { duration, instant } from "./words.js";

/** Flow runs that are shown at first, and that are added when older ones are asked for */
const AT_ONCE = 50;

const PAUSE = 2_000;

const COLUMNS = [
  ["Flow run", (run) => link(flowRunHref(run.id), run.name ?? run.id)],
  ["Flow", (run) => name(run.flow.name)],
  ["State", (run) => stateOf(run.state)],
  ["Started", (run) => run.start_time && instant(milliseconds(run.start_time))],
  ["Duration", (run) => run.start_time && duration((endOf(run) ?? Date.now()) - milliseconds(run.start_time))],
];

/** All flow runs, newest first. */
export function flowRunsPage(main, notice) {
  const known = new Map();
  let oldest = null;
  let seen;
  let isMore = true;
  let isOlderWanted = true;
  const list = element("div");
  const older = element("button", { type: "button", hidden: "", click: () => addOlder() }, "Older");
  main.classList.add("scrolls");
  main.append(list, older);

  const add = async () => {
    const where = oldest === null ? {} : { created: { _lt: oldest } };
    const found = await rows("flow_run", { where, order: { created: "desc" }, limit: AT_ONCE });
    merge(known, found);
    isMore = found.length === AT_ONCE;
    oldest = found.at(-1)?.created ?? oldest;
    show();
    return found;
  };
  const show = () => {
    const newestFirst = [...known.values()].sort((a, b) => (a.created < b.created ? 1 : -1));
    fill(
      list,
      newestFirst.length ? table(COLUMNS, newestFirst) : element("p", { class: "empty" }, "There is no flow run yet."),
    );
    older.hidden = !isMore;
  };
  const look = async () => {
    if (isOlderWanted) {
      const found = await add();
      isOlderWanted = false;
      seen ??= newest(found);
    } else {
      const found = await changes("flow_run", { created: { _gte: oldest ?? EPOCH } }, overlapping(seen));
      seen = newest(found, seen);
      merge(known, found);
      show();
    }
    return PAUSE;
  };
  const wake = follow(look, notice);
  const addOlder = () => {
    isOlderWanted = true;
    wake();
  };
}
