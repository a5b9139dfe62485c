import { Missing, ask, isId, milliseconds } from "./backend.js";
import { shownState } from "./deferral.js";
import { element, fill, name, stateOf } from "./element.js";
import { follow } from "./follow.js";
import { heading } from "./heading.js";
import { flowRunHref, link } from "./links.js";
import { Logs } from "./logs.js";
import { FINISHED } from "./states.js";
import { table } from "./table.js";
import { endOf } from "./times.js";
import { duration, instant } from "./words.js";

const PAUSE = 1_000;
const FINISHED_PAUSE = 10_000;

// nothing, for as long as there is nothing new
const QUERY = `query($where: task_run_bool_exp, $children: task_run_bool_exp, $unfinished: task_run_bool_exp) {
  task_run(where: $where) {
    id map_index version state state_message state_timestamp start_time serialized_state
    task { slug }
    flow_run {
      id name flow { name }
      children: task_runs_aggregate(where: $children) {
        aggregate { count min { start_time } max { state_timestamp } }
      }
      unfinished: task_runs_aggregate(where: $unfinished) { aggregate { count } }
    }
    states(order_by: {timestamp: asc}) { id timestamp state message }
  }
}`;

/** The children of a mapped task run that have started */
const childrenOf = (id) => ({
  map_index: { _gte: 0 },
  start_time: { _is_null: false },
  task: { task_runs: { id: { _eq: id }, map_index: { _lt: 0 } } },
});

/** When a task run ran, as {start, end}; a mapped one from the start of its first child to the end of its last. */
function timesOf(run) {
  const { aggregate } = run.flow_run.children;
  if (!aggregate.count) return { start: milliseconds(run.start_time), end: endOf(run) };
  const isOver = !run.flow_run.unfinished.aggregate.count;
  const start = milliseconds(aggregate.min.start_time);
  return { start, end: isOver ? milliseconds(aggregate.max.state_timestamp) : null };
}

/** One task run: its states, where its result is kept, and its logs. */
export function taskRunPage(main, notice, id) {
  const head = element("div");
  const states = element("div", { class: "states scrolls" });
  const logs = new Logs(
    () => ({ task_run_id: { _eq: id } }),
    () => wake(),
  );
  let run = null;
  main.append(head, states, logs.element);

  const look = async () => {
    // a mapped task run stays as it is while its children run
    const known = run?.state === "Mapped" ? -1 : (run?.version ?? -1);
    const children = childrenOf(id);
    const [found] = isId(id)
      ? (
          await ask(QUERY, {
            where: { id: { _eq: id }, version: { _gt: known } },
            children,
            unfinished: { ...children, state: { _nin: [...FINISHED] } },
          })
        ).task_run
      : [];
    run = found ?? run;
    if (!run) throw new Missing(`There is no task run ${id}.`);
    const isMapped = run.map_index >= 0;
    const { start, end } = timesOf(run);
    const title = isMapped ? `${run.task.slug}[${run.map_index}]` : run.task.slug;
    const result = run.serialized_state?._result;
    document.title = `${title}: ${run.state}`;
    const shown = {
      name: title,
      flow: run.flow_run.flow.name,
      state: shownState(run),
      message: run.state_message,
      start,
      end: end ?? Date.now(),
    };
    const more = [
      ["Flow run", link(flowRunHref(run.flow_run.id), run.flow_run.name ?? run.flow_run.id)],
      ["Ended", end === null ? null : instant(end)],
      ["Map index", isMapped ? String(run.map_index) : null],
      ["Result", result?.type && result.type !== "NoResultType" ? name(result.type) : null],
      ["Location", result?.location ? name(String(result.location)) : null],
      ["Task run", run.id],
    ];
    fill(head, heading(shown, Date.now(), ...more));
    fill(states, table(COLUMNS, withDurations(run)));
    await logs.look();
    return FINISHED.has(run.state) ? FINISHED_PAUSE : PAUSE;
  };
  const wake = follow(look, notice);
}

const COLUMNS = [
  ["State", (each) => stateOf(each.state)],
  ["Since", (each) => instant(each.start)],
  ["For", (each) => (each.end === null ? "" : duration(each.end - each.start))],
  ["Message", (each) => each.message],
];

/** Each state lasted until the next. */
function withDurations({ states }) {
  return states.map((each, index) => ({
    ...each,
    start: milliseconds(each.timestamp),
    end: index + 1 < states.length ? milliseconds(states[index + 1].timestamp) : null,
  }));
}
