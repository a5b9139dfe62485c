import { PAGE, milliseconds, newest, overlapping, rows } from "./backend.js";
import { element } from "./element.js";
import { instant } from "./words.js";

/** Lines that are loaded at once, and that are kept in the document while new ones come */
const AT_ONCE = 500;
const MOST = 5_000;

/** Characters of a line that are shown */
const LONGEST = 20_000;

const NEWEST_FIRST = [{ timestamp: "desc" }, { id: "desc" }];

/** The log of a run: the newest lines, at the bottom; those before when they are asked for. */
export class Logs {
  #where;
  /** rows, oldest first, each with its `line` in the document */
  #rows = [];
  #seen = null;
  #isOlderWanted = false;

  /** `wake` is called when somebody wants older lines, which the next `look` asks for. */
  constructor(where, wake) {
    this.#where = where;
    const click = () => {
      this.#isOlderWanted = true;
      wake();
    };
    this.older = element("button", { type: "button", hidden: "", click }, "Older");
    this.empty = element("p", { class: "empty", hidden: "" }, "There are no logs.");
    this.lines = element("div", { class: "log", role: "log", tabindex: 0, "aria-label": "Logs" });
    this.element = element("div", { class: "part scrolls logs" }, this.older, this.empty, this.lines);
  }

  async look() {
    if (this.#isOlderWanted) await this.#before();
    this.#isOlderWanted = false;
    const found = this.#seen && (await this.#changes());
    if (found && found.length < PAGE) this.#add(found);
    else await this.#begin();
    this.empty.hidden = this.#rows.length > 0;
  }

  #changes() {
    const where = { ...this.#where(), updated: { _gt: overlapping(this.#seen) } };
    return rows("log", { where, order: { updated: "asc" } });
  }

  /** Also when so many have come that their beginning is of no interest. */
  async #begin() {
    const found = await rows("log", { where: this.#where(), order: NEWEST_FIRST, limit: AT_ONCE });
    this.#rows = [];
    this.lines.replaceChildren();
    this.older.hidden = true;
    if (found.length) this.#add(found);
    this.older.hidden = found.length < AT_ONCE;
  }

  async #before() {
    const [{ id, timestamp }] = this.#rows;
    const where = {
      ...this.#where(),
      timestamp: { _lte: timestamp },
      _or: [{ timestamp: { _lt: timestamp } }, { id: { _lt: id } }],
    };
    const found = await rows("log", { where, order: NEWEST_FIRST, limit: AT_ONCE });
    this.older.hidden = found.length < AT_ONCE;
    const { scrollHeight } = this.element;
    const older = found.reverse().map((row) => ({ ...row, line: lineOf(row) }));
    this.#rows.unshift(...older);
    this.lines.prepend(...older.map(({ line }) => line));
    this.element.scrollTop += this.element.scrollHeight - scrollHeight;
  }

  #add(found) {
    const known = new Set(this.#rows.map(({ id }) => id));
    const isFirst = !known.size;
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    const isAtEnd = isFirst || scrollHeight - scrollTop - clientHeight < 30;
    this.#seen = newest(found, this.#seen ?? undefined);
    for (const row of found.filter(({ id }) => !known.has(id)).sort(compare)) {
      // most come at the end; some were uploaded late
      let at = this.#rows.length;
      while (at && compare(row, this.#rows[at - 1]) < 0) at--;
      // among those that are shown when older ones are asked for
      if (!at && !this.older.hidden) continue;
      const line = lineOf(row);
      this.lines.insertBefore(line, this.#rows[at]?.line ?? null);
      this.#rows.splice(at, 0, { ...row, line });
    }
    if (!isAtEnd) return;
    if (this.#rows.length > MOST) {
      this.#rows.splice(0, this.#rows.length - MOST).forEach(({ line }) => line.remove());
      this.older.hidden = false;
    }
    this.element.scrollTop = this.element.scrollHeight;
  }
}

function compare(a, b) {
  if (a.timestamp !== b.timestamp) return a.timestamp < b.timestamp ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function lineOf({ timestamp, level, name, message }) {
  const text = message ?? "";
  const shown =
    text.length > LONGEST ? `${text.slice(0, LONGEST)}… (${text.length.toLocaleString()} characters)` : text;
  return element(
    "div",
    { class: "entry", "data-level": level },
    element("time", { datetime: timestamp, title: name }, instant(milliseconds(timestamp))),
    element("span", { class: "level" }, level ?? ""),
    element("span", { class: "message", dir: "auto" }, shown),
  );
}
