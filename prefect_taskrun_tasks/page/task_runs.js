import { element, fill, stateOf } from "./element.js";
import { link, taskRunHref } from "./links.js";
import { byStart, rowsOf, statesOf, withAllBelow } from "./rows.js";
import { table } from "./table.js";
import { count, duration, instant } from "./words.js";

/** Rows of one page */
const PAGE = 100;

const COLUMNS = [
  ["Task run", (row) => link(taskRunHref(row.id), row.name)],
  ["State", (row) => stateOf(row.state)],
  ["Started", (row) => row.start !== null && instant(row.start)],
  ["Duration", (row) => row.start !== null && duration(row.end - row.start)],
  ["Message", (row) => row.message],
].map(([title, cell]) => [title, (row) => cell(row) || ""]);

/** All task runs of a flow run in a table, page by page. */
export class TaskRuns {
  #rows = [];
  #page = 0;

  constructor() {
    const again = () => {
      this.#page = 0;
      this.#draw();
    };
    const turn = (by) => {
      this.#page += by;
      this.#draw();
    };
    this.filter = element("input", {
      type: "search",
      placeholder: "Filter",
      "aria-label": "Filter by name",
      input: again,
    });
    this.state = element(
      "select",
      { "aria-label": "State", change: again },
      element("option", { value: "" }, "All states"),
    );
    this.previous = element("button", { type: "button", click: () => turn(-1) }, "Previous");
    this.next = element("button", { type: "button", click: () => turn(1) }, "Next");
    this.where = element("span", { role: "status" });
    const pager = element("div", { class: "pager" }, this.where, this.previous, this.next);
    this.list = element("div");
    this.element = element(
      "div",
      { class: "part scrolls task-runs" },
      element("div", { class: "tools" }, this.filter, this.state, pager),
      this.list,
    );
  }

  show(picture) {
    this.#rows = withAllBelow(rowsOf(picture))
      .filter((row) => row.kind === "task run")
      .sort(byStart);
    this.#draw();
  }

  #draw() {
    const chosen = this.state.value;
    const states = statesOf(this.#rows).map(([state, number]) => [state, `${state} (${number.toLocaleString()})`]);
    fill(this.state, ...[["", "All states"], ...states].map(([value, text]) => element("option", { value }, text)));
    this.state.value = states.some(([state]) => state === chosen) ? chosen : "";
    const text = this.filter.value.trim().toLowerCase();
    const found = this.#rows.filter(
      (row) => (!this.state.value || row.state === this.state.value) && row.name.toLowerCase().includes(text),
    );
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    this.#page = Math.min(this.#page, pages - 1);
    const first = this.#page * PAGE;
    fill(this.list, table(COLUMNS, found.slice(first, first + PAGE)));
    this.where.textContent = `${count(found.length, "task run")}, page ${this.#page + 1} of ${pages}`;
    this.previous.disabled = this.#page === 0;
    this.next.disabled = this.#page === pages - 1;
  }
}
