import { element, mark, say } from "./element.js";
import { FAILED, FINISHED } from "./states.js";
import { count, duration } from "./words.js";

/** Pixels */
const GRAPH = 46;
const LEAST_BAR = 2;

const SVG = "http://www.w3.org/2000/svg";

let views = 0;

/** The elements of one row. They stay the same while the row is in sight, so that a click that has begun can end. */
export class RowView {
  #shown = null;
  #paths = [];

  constructor(href) {
    this.twisty = element("span", { class: "twisty", "aria-hidden": "true" });
    this.dot = element("i", { class: "dot" });
    this.name = element(href ? "a" : "span", { class: "name", dir: "auto", href, tabindex: href && -1 });
    this.time = element("span", { class: "time" });
    this.note = element("span", { class: "note" });
    this.bar = element("div", { class: "bar", role: "img" });
    this.graph = document.createElementNS(SVG, "svg");
    mark(this.graph, "class", "graph");
    mark(this.graph, "role", "img");
    this.unstarted = element("span", { class: "unstarted" });
    const label = element(
      "div",
      { class: "label", role: "gridcell" },
      this.twisty,
      this.dot,
      this.name,
      this.time,
      this.note,
    );
    const track = element("div", { class: "track", role: "gridcell" }, this.bar, this.graph, this.unstarted);
    this.element = element("div", { class: "row", role: "row", id: `row-${++views}` }, label, track);
  }

  /** What does not depend on the part of the time that is seen. */
  show(place, isActive, graph) {
    const { row, level, index, children, isOpen, top, height } = place;
    mark(this.element, "aria-selected", isActive);
    if (this.#shown === place) return;
    this.#shown = place;
    this.graphed = graph;
    const length = row.start === null ? null : row.end - row.start;
    mark(this.element, "data-id", row.id);
    mark(this.element, "data-kind", row.kind);
    mark(this.element, "data-state", row.state);
    mark(this.element, "aria-level", level);
    mark(this.element, "aria-rowindex", index + 1);
    mark(this.element, "aria-expanded", children.length ? isOpen : null);
    this.element.classList.toggle("closed", graph !== null);
    this.element.classList.toggle("failed", FAILED.has(row.state));
    this.element.classList.toggle("running", !FINISHED.has(row.state));
    this.element.style.transform = `translateY(${top}px)`;
    this.element.style.height = `${height}px`;
    this.element.style.setProperty("--level", level - 1);
    say(this.name, row.name);
    say(this.time, length === null ? "" : duration(length));
    const failed = children.filter((each) => FAILED.has(each.state)).length;
    const second = failed ? `${failed.toLocaleString()} failed` : `${graph?.peak.toLocaleString()} at once`;
    const notes = graph ? [count(children.length, "child", "children"), second] : [];
    say(this.note, notes.join(", "));
    this.note.classList.toggle("bad", failed > 0);
    say(this.unstarted, length === null ? row.state : "");
    const drawing = graph ? this.graph : this.bar;
    const said = [row.state, ...(length === null ? [] : [duration(length)]), ...notes];
    mark(drawing, "aria-label", `${row.name}: ${said.join(", ")}`);
    this.graph.toggleAttribute("hidden", !graph);
    this.bar.hidden = graph !== null || length === null;
  }

  /** What does. */
  draw({ row }, { from, to }, width) {
    if (row.start === null) return;
    if (this.graphed) return this.#drawGraph(from, to, width);
    const scale = width / (to - from);
    const left = (row.start - from) * scale;
    const right = Math.max((row.end - from) * scale, left + LEAST_BAR);
    const isSeen = right > 0 && left < width;
    this.bar.hidden = !isSeen;
    if (!isSeen) return;
    // what is far outside need not be as wide as it would be
    const begin = Math.max(left, -20);
    this.bar.style.transform = `translateX(${begin}px)`;
    this.bar.style.width = `${Math.min(right, width + 20) - begin}px`;
  }

  #drawGraph(from, to, width) {
    const key = `${from} ${to} ${width}`;
    if (this.graph.dataset.drawn === key && this.graph.graphed === this.graphed) return;
    this.graph.dataset.drawn = key;
    this.graph.graphed = this.graphed;
    const paths = this.graphed.paths(from, to, width, GRAPH);
    while (this.#paths.length > paths.length) this.#paths.pop().remove();
    while (this.#paths.length < paths.length) {
      this.#paths.push(this.graph.appendChild(document.createElementNS(SVG, "path")));
    }
    paths.forEach(({ state, d }, index) => {
      mark(this.#paths[index], "data-state", state);
      this.#paths[index].setAttribute("d", d);
    });
  }
}
