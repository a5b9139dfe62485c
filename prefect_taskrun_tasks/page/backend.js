/** Rows of one answer */
export const PAGE = 1_000;

export const EPOCH = "1970-01-01T00:00:00+00:00";

/** Milliseconds in which one who began earlier may have ended later, and so have stored what is older than the newest */
const OVERLAP = 5_000;

const RUN = "id state state_message state_timestamp start_time updated version";

const FIELDS = {
  flow_run: `${RUN} name created context flow { name }`,
  task_run: `${RUN} map_index task { slug }`,
  log: "id timestamp updated level name message",
};

/** The backend cannot be reached, or is not the one that answers. */
export class Away extends Error {}

/** There is no such run. */
export class Missing extends Error {}

/** Where a key is kept for as long as the tab is open */
const KEY = "prefect-taskrun-api-key";

let isDeclined = false;

/** Asks for the key, unless that was done since `used` was sent. Whether there is another one to try. */
function hasOtherKey(used) {
  if (sessionStorage.getItem(KEY) !== used) return true;
  if (isDeclined) return false;
  const given = prompt(used ? "The backend has another API key. Its key:" : "The backend's API key:");
  // who has said no is not asked again by each of the questions to come
  isDeclined = !given;
  // what cannot be in a header, such as a space that was copied along, is not part of it
  if (given) sessionStorage.setItem(KEY, given.replace(/[^!-~]/g, ""));
  return !isDeclined;
}

/** What the backend answers to a query. */
export async function ask(query, variables) {
  const key = sessionStorage.getItem(KEY);
  let answer;
  try {
    const response = await fetch("/graphql", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.timeout(30_000),
    });
    answer = await response.json();
  } catch {
    throw new Away();
  }
  const [error] = answer.errors ?? [];
  if (error?.extensions?.code === "UNAUTHENTICATED" && hasOtherKey(key)) return ask(query, variables);
  if (error) throw new Error(error.message);
  return answer.data;
}

/** Rows of a table, as `FIELDS` has them. */
export async function rows(table, { where, order, limit = PAGE }) {
  const query = `query($where: ${table}_bool_exp, $order: [${table}_order_by!], $limit: Int) {
    rows: ${table}(where: $where, order_by: $order, limit: $limit) { ${FIELDS[table]} }
  }`;
  return (await ask(query, { where, order, limit })).rows;
}

/** All rows that changed after an instant. One that changes while pages of them are asked for comes again. */
export async function changes(table, where, since) {
  const found = [];
  let after = { updated: { _gt: since } };
  for (;;) {
    const page = await rows(table, { where: { _and: [where, after] }, order: [{ updated: "asc" }, { id: "asc" }] });
    found.push(...page);
    if (page.length < PAGE) return found;
    // those of one transaction may all have changed at one instant
    const { updated, id } = page.at(-1);
    after = { updated: { _gte: updated }, _or: [{ updated: { _gt: updated } }, { id: { _gt: id } }] };
  }
}

/** The newest change of rows, or what it was before. */
export function newest(found, before = EPOCH) {
  return found.reduce((most, { updated }) => (updated > most ? updated : most), before);
}

/** From when on to ask for changes, if those up to an instant are known. */
export function overlapping(instant) {
  return new Date(Math.max(0, Date.parse(instant) - OVERLAP)).toISOString();
}

/** Takes rows into a map by id, each unless a newer one is there. */
export function merge(map, found) {
  for (const row of found) {
    const known = map.get(row.id);
    if (!known || known.updated < row.updated) map.set(row.id, row);
  }
}

/** Milliseconds since 1970, or null */
export function milliseconds(time) {
  return time === null ? null : Date.parse(time);
}

/** Whether a text could be an id: the backend takes no other for one. */
export function isId(text) {
  return /^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$/i.test(text ?? "");
}
