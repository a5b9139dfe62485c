import { FINISHED } from "./states.js";

/** Rows with more children than this are closed at first. */
const FEW = 20;

/**
 * The rows of a picture: flow runs and task runs that know their children, in the order of their start.
 *
 * The first is the flow run that is shown. Children of a task run are those that it was mapped to, and the flow runs
 * that it created; those of a flow run are the flow runs that it created.
 */
export function rowsOf(picture) {
  const made = ({ id, kind, name, state, message, start, end, ...more }) => {
    // the end of a finished run may be unknown
    const until = FINISHED.has(state) ? (end ?? start) : picture.taken_at;
    return {
      id,
      kind,
      name,
      state,
      message,
      start,
      end: start === null ? null : until,
      children: [],
      parent: null,
      ...more,
    };
  };
  const hang = (row, parent) => {
    row.parent = parent;
    parent.children.push(row);
  };

  const [shown, ...descendants] = picture.flow_runs.map((each) => made({ ...each, kind: "flow run" }));
  const taskRuns = picture.task_runs.map(([id, slug, index, state, message, start, end]) =>
    made({
      id,
      kind: "task run",
      name: index < 0 ? slug : `${slug}[${index}]`,
      slug,
      index,
      state,
      message,
      start,
      end,
    }),
  );
  const parents = new Map(taskRuns.filter((row) => row.index < 0).map((row) => [row.slug, row]));
  const top = [];
  for (const row of taskRuns) {
    const parent = row.index < 0 ? undefined : parents.get(row.slug);
    if (parent) hang(row, parent);
    else top.push(row);
  }
  for (const row of parents.values()) {
    row.isMapped = row.children.length > 0;
    if (!row.isMapped) continue;
    // it ran from the start of its first child to the end of its last
    row.start = earliest(row.children);
    row.end = latest(row.children);
  }

  const byId = new Map([...taskRuns, ...descendants].map((row) => [row.id, row]));
  for (const row of descendants) {
    const parent = byId.get(row.parent_task_run_id) ?? byId.get(row.parent_flow_run_id);
    if (parent && parent !== row) hang(row, parent);
    else top.push(row);
  }
  for (const row of [...taskRuns, ...descendants]) row.children.sort(byStart);
  return [shown, ...top.sort(byStart)];
}

/** These rows, and all that are below them. */
export function withAllBelow(rows) {
  const found = [...rows];
  for (const row of found) found.push(...row.children);
  return found;
}

export function byStart(a, b) {
  if (a.start !== b.start) return (a.start ?? Infinity) - (b.start ?? Infinity);
  return (a.index ?? 0) - (b.index ?? 0) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}

export function earliest(rows) {
  return rows.reduce((least, { start }) => (start !== null && (least === null || start < least) ? start : least), null);
}

export function latest(rows) {
  return rows.reduce((most, { end }) => (end !== null && (most === null || end > most) ? end : most), null);
}

/**
 * The rows that are to be seen, one below the other, as {row, level, isOpen, children}.
 *
 * A row is left out if neither it nor any below it matches. `opened` says of rows, by id, whether somebody opened them.
 */
export function visible(rows, opened, matches) {
  const seen = [];
  const keep = (row) => {
    const children = row.children.map(keep).filter(Boolean);
    return children.length || matches(row) ? { row, children } : null;
  };
  const add = ({ row, children }, level) => {
    const isOpen = children.length > 0 && (opened.get(row.id) ?? children.length <= FEW);
    seen.push({ row, level, isOpen, children: children.map((each) => each.row) });
    if (isOpen) children.forEach((each) => add(each, level + 1));
  };
  rows
    .map(keep)
    .filter(Boolean)
    .forEach((each) => add(each, 1));
  return seen;
}

/** How many of the rows are in each state, most first. */
export function statesOf(rows) {
  const counts = new Map();
  for (const { state } of rows) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}
