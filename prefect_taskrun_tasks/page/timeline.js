import { Concurrency } from "./concurrency.js";
import { element, facts, fill, mark, name, say, stateOf } from "./element.js";
import { earliest, latest, rowsOf, statesOf, visible } from "./rows.js";
import { FAILED, FINISHED } from "./states.js";
import { count, duration, instant, ticks } from "./words.js";

/** Pixels */
const ROW = 24;
const CLOSED_GROUP = 56;
const GRAPH = 46;
const LEAST_BAR = 2;
const BETWEEN_TICKS = 90;
const DRAG = 4;

/** Milliseconds that are seen at least */
const SHORTEST = 10;

const SVG = "http://www.w3.org/2000/svg";

/**
 * A flow run's runs over time. Only the rows that are in sight are in the document.
 *
 * `href` says where a row leads to, if anywhere.
 */
export class Timeline {
  #href;
  #picture = null;
  #rows = [];
  /** what somebody opened or closed, by id */
  #opened = new Map();
  #onlyState = null;
  /** {row, level, isOpen, children, top, height} of all rows that could be scrolled to, and the same by id */
  #places = [];
  #byId = new Map();
  #graphs = new Map();
  #views = new Map();
  #activeId = null;
  /** the milliseconds that are seen, from the first start on; all of them if `isFitted` */
  #from = 0;
  #to = 1;
  #length = 1;
  #isFitted = true;
  #origin = 0;
  #width = 0;
  #isDue = false;
  #pointers = new Map();
  #dragged = false;

  constructor(parent, { href = () => null } = {}) {
    this.#href = href;
    this.filter = element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter by name", input: () => this.#arrange() });
    this.legend = element("div", { class: "legend", role: "group", "aria-label": "Show only one state" });
    const button = (label, title, click) => element("button", { type: "button", title, "aria-label": title, click }, label);
    const zooms = element(
      "div",
      { class: "zooms", role: "group", "aria-label": "Zoom" },
      button("−", "Zoom out", () => this.#zoom(2)),
      button("+", "Zoom in", () => this.#zoom(0.5)),
      button("Fit", "Show all", () => this.#look(0, this.#length)),
    );
    this.axis = element("div", { class: "ticks" });
    this.lines = element("div", { class: "lines", "aria-hidden": "true" });
    this.body = element("div", { class: "rows", role: "rowgroup" }, this.lines);
    this.chart = element(
      "div",
      { class: "chart", role: "treegrid", tabindex: 0, "aria-busy": "true", "aria-label": "Runs over time", "aria-describedby": "timeline-keys" },
      element("div", { class: "axis", "aria-hidden": "true" }, element("div", { class: "corner" }), this.axis),
      this.body,
    );
    this.details = element("div", { class: "details", "aria-live": "polite" });
    this.tooltip = element("div", { class: "tooltip", role: "tooltip", hidden: "" });
    const keys = "Arrow keys move and open, + and − zoom, Shift with an arrow key pans, 0 shows all.";
    parent.append(
      element(
        "section",
        { class: "timeline" },
        element("div", { class: "tools" }, this.filter, this.legend, zooms),
        this.chart,
        this.details,
        element("p", { class: "keys", id: "timeline-keys" }, keys),
        this.tooltip,
      ),
    );
    this.#listen();
  }

  show(picture) {
    this.#picture = picture;
    this.#rows = rowsOf(picture);
    this.#origin = earliest(this.#rows) ?? picture.taken_at;
    const all = this.#all();
    this.#length = Math.max(1, (latest(all) ?? this.#origin) - this.#origin);
    this.#isFitted ? this.#look(0, this.#length) : this.#look(this.#from, this.#to);
    this.#count(all.filter((row) => row.kind === "task run"));
    this.#arrange();
  }

  #all() {
    const found = [...this.#rows];
    for (const row of found) found.push(...row.children);
    return found;
  }

  #count(taskRuns) {
    const buttons = statesOf(taskRuns).map(([state, number]) =>
      element(
        "button",
        { type: "button", "data-state": state, "aria-pressed": state === this.#onlyState, click: () => this.#only(state) },
        stateOf(state),
        element("b", {}, number.toLocaleString()),
      ),
    );
    fill(this.legend, ...buttons);
  }

  #only(state) {
    this.#onlyState = this.#onlyState === state ? null : state;
    for (const each of this.legend.children) mark(each, "aria-pressed", each.dataset.state === this.#onlyState);
    this.#arrange();
  }

  /** Which rows there are, and where. */
  #arrange() {
    const text = this.filter.value.trim().toLowerCase();
    const [shown] = this.#rows;
    const matches = (row) =>
      row === shown || ((!this.#onlyState || row.state === this.#onlyState) && row.name.toLowerCase().includes(text));
    let top = 0;
    this.#places = visible(this.#rows, this.#opened, matches).map((place, index) => {
      const height = place.row.isMapped && place.children.length && !place.isOpen ? CLOSED_GROUP : ROW;
      const placed = { ...place, index, top, height };
      top += height;
      return placed;
    });
    this.#byId = new Map(this.#places.map((place) => [place.row.id, place]));
    this.#graphs.clear();
    this.body.style.height = `${top}px`;
    mark(this.chart, "aria-rowcount", this.#places.length);
    this.#tell();
    this.#redraw();
  }

  #graph({ row, children }) {
    if (!this.#graphs.has(row.id)) this.#graphs.set(row.id, new Concurrency(children.filter((each) => each.kind === "task run")));
    return this.#graphs.get(row.id);
  }

  #toggle(place, isOpen = !place.isOpen) {
    if (!place.children.length || place.isOpen === isOpen) return;
    this.#opened.set(place.row.id, isOpen);
    this.#arrange();
  }

  #look(from, to) {
    const span = Math.min(Math.max(to - from, SHORTEST), this.#length);
    this.#from = Math.min(Math.max(from, 0), this.#length - span);
    this.#to = this.#from + span;
    this.#isFitted = span === this.#length;
    this.#redraw();
  }

  /** Shows `factor` times as much, and leaves the moment that is `share` of the width from the left where it is. */
  #zoom(factor, share = 0.5) {
    const span = this.#to - this.#from;
    const seen = Math.min(Math.max(span * factor, SHORTEST), this.#length);
    const from = this.#from + share * (span - seen);
    this.#look(from, from + seen);
  }

  #pan(pixels) {
    const by = (pixels / this.#width) * (this.#to - this.#from);
    const from = Math.min(Math.max(this.#from + by, 0), this.#length - (this.#to - this.#from));
    this.#look(from, from + this.#to - this.#from);
  }

  #redraw() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
    });
  }

  #draw() {
    // in a part of the page that is hidden
    if (!this.#width || !this.#picture) return;
    const { scrollTop, clientHeight } = this.chart;
    const first = this.#placeAt(scrollTop);
    const drawn = new Set();
    const look = { from: this.#from + this.#origin, to: this.#to + this.#origin, width: this.#width };
    for (let index = first; index < this.#places.length && this.#places[index].top < scrollTop + clientHeight; index++) {
      const place = this.#places[index];
      drawn.add(place.row.id);
      let view = this.#views.get(place.row.id);
      if (!view) {
        view = new RowView(this.#href(place.row));
        this.#views.set(place.row.id, view);
        this.body.append(view.element);
      }
      view.show(place, place.row.id === this.#activeId, place.height === CLOSED_GROUP ? this.#graph(place) : null);
      view.draw(place, look);
    }
    for (const [id, view] of this.#views) {
      if (drawn.has(id)) continue;
      view.element.remove();
      this.#views.delete(id);
    }
    mark(this.chart, "aria-activedescendant", this.#views.get(this.#activeId)?.element.id ?? null);
    this.#drawAxis();
    // what is drawn now is on the screen when the next frame begins
    if (this.chart.ariaBusy === "true") requestAnimationFrame(() => this.#drawn());
  }

  #drawn() {
    performance.mark("drawn");
    this.chart.ariaBusy = "false";
  }

  #drawAxis() {
    const scale = this.#width / (this.#to - this.#from);
    const marks = ticks(this.#from, this.#to, BETWEEN_TICKS / scale);
    for (const [parent, kind] of [[this.axis, "tick"], [this.lines, "line"]]) {
      while (parent.children.length > marks.length) parent.lastChild.remove();
      while (parent.children.length < marks.length) parent.append(element("div", { class: kind }));
      marks.forEach(({ at, text }, index) => {
        const each = parent.children[index];
        each.style.transform = `translateX(${(at - this.#from) * scale}px)`;
        if (kind === "tick") say(each, text);
      });
    }
  }

  #placeAt(y) {
    let [low, high] = [0, this.#places.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#places[middle].top <= y) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  #activate(place) {
    if (!place) return;
    this.#activeId = place.row.id;
    // the details may take some of the height
    this.#tell();
    const { scrollTop, clientHeight } = this.chart;
    const bottom = place.top + place.height + this.axis.offsetHeight;
    if (place.top < scrollTop) this.chart.scrollTop = place.top;
    else if (bottom > scrollTop + clientHeight) this.chart.scrollTop = bottom - clientHeight;
    this.#redraw();
  }

  /** The details of the active row: anew only if they say something else, for a screen reader reads them out. */
  #tell() {
    const place = this.#byId.get(this.#activeId);
    const said = place ? `${place.row.id} ${place.row.state} ${place.row.message}` : "";
    if (this.details.dataset.of === said) return;
    this.details.dataset.of = said;
    this.details.replaceChildren(...(place ? this.#describe(place) : []));
  }

  #describe(place) {
    const { row, children } = place;
    const href = this.#href(row);
    const counts = row.isMapped ? statesOf(children).map(([state, number]) => `${number.toLocaleString()} ${state}`) : [];
    const pairs = facts([
      ["Message", row.message && name(row.message)],
      ["Flow", row.flow && name(row.flow)],
      ["Children", counts.length ? counts.join(", ") : null],
      ["At once", counts.length ? this.#graph(place).peak.toLocaleString() : null],
      ["Started", row.start === null ? null : instant(row.start)],
      ["Duration", row.start === null ? null : duration(row.end - row.start)],
      [row.kind === "flow run" ? "Flow run" : "Task run", row.id],
    ]);
    const title = href ? element("a", { href }, name(row.name)) : name(row.name);
    return [element("h2", {}, title, stateOf(row.state)), pairs];
  }

  #hover(event) {
    const place = event.pointerType === "touch" || this.#dragged ? null : this.#placeOf(event.target);
    const isOn = place && event.target.closest(".bar, .graph, .label, .unstarted");
    this.tooltip.hidden = !isOn;
    if (!isOn) return;
    this.tooltip.replaceChildren(...this.#describe(place));
    const { width, height } = this.tooltip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    const top = event.clientY + 18 + height < innerHeight ? event.clientY + 18 : event.clientY - height - 12;
    this.tooltip.style.transform = `translate(${Math.max(8, left)}px, ${Math.max(8, top)}px)`;
  }

  #placeOf(target) {
    return this.#places[target.closest?.(".row")?.getAttribute("aria-rowindex") - 1];
  }

  #listen() {
    const { chart } = this;
    new ResizeObserver(() => {
      this.#width = this.axis.clientWidth;
      this.#redraw();
    }).observe(chart);
    chart.addEventListener("scroll", () => {
      this.tooltip.hidden = true;
      this.#redraw();
    });
    chart.addEventListener("keydown", (event) => this.#press(event));
    chart.addEventListener("click", (event) => this.#click(event));
    chart.addEventListener("pointermove", (event) => this.#hover(event));
    chart.addEventListener("pointerleave", () => (this.tooltip.hidden = true));
    chart.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.body.addEventListener("pointerdown", (event) => {
      if (event.button || !event.target.closest(".track")) return;
      this.#pointers.set(event.pointerId, event.clientX);
    });
    addEventListener("pointermove", (event) => this.#drag(event));
    for (const ended of ["pointerup", "pointercancel"]) {
      addEventListener(ended, (event) => {
        this.#pointers.delete(event.pointerId);
        // after the click that ends a drag, if there is one
        if (!this.#pointers.size) setTimeout(() => (this.#dragged = false));
      });
    }
  }

  #wheel(event) {
    const { left } = this.axis.getBoundingClientRect();
    // a pinch on a touchpad comes as a wheel with Ctrl
    if (event.ctrlKey || event.metaKey) {
      const pixels = event.deltaY * (event.deltaMode ? 30 : 1);
      this.#zoom(Math.exp(Math.max(-100, Math.min(100, pixels)) * 0.005), (event.clientX - left) / this.#width);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.#pan(event.deltaX || event.deltaY);
    } else return;
    event.preventDefault();
  }

  /** One pointer pans, two zoom around their middle. */
  #drag(event) {
    // one that ended outside the window
    if (!event.buttons) this.#pointers.delete(event.pointerId);
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined || (!this.#dragged && Math.abs(event.clientX - before) < DRAG)) return;
    this.#dragged = true;
    this.tooltip.hidden = true;
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId);
    this.#pointers.set(event.pointerId, event.clientX);
    if (!others.length) return this.#pan(before - event.clientX);
    const [[, other]] = others;
    const { left } = this.axis.getBoundingClientRect();
    const factor = Math.max(1, Math.abs(before - other)) / Math.max(1, Math.abs(event.clientX - other));
    this.#zoom(factor, ((event.clientX + other) / 2 - left) / this.#width);
  }

  #click(event) {
    const place = this.#placeOf(event.target);
    // the end of a drag, or a link
    if (!place || this.#dragged || event.target.closest("a")) return;
    this.#activate(place);
    if (event.target.closest(".label") || place.height === CLOSED_GROUP) this.#toggle(this.#byId.get(place.row.id));
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.chart) return;
    const place = this.#byId.get(this.#activeId);
    const move = (by) => this.#activate(this.#places[Math.min(Math.max((place?.index ?? -1) + by, 0), this.#places.length - 1)]);
    const page = Math.max(1, Math.floor(this.chart.clientHeight / ROW) - 2);
    const keys = {
      "+": () => this.#zoom(0.5),
      "=": () => this.#zoom(0.5),
      "-": () => this.#zoom(2),
      0: () => this.#look(0, this.#length),
      ArrowDown: () => move(1),
      ArrowUp: () => move(-1),
      PageDown: () => move(page),
      PageUp: () => move(-page),
      Home: () => this.#activate(this.#places[0]),
      End: () => this.#activate(this.#places[this.#places.length - 1]),
      ArrowRight: () => this.#enter(event, place),
      ArrowLeft: () => this.#leave(event, place),
      Enter: () => this.#open(place),
    };
    if (!keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
  }

  #enter(event, place) {
    if (event.shiftKey) this.#pan(this.#width / 8);
    else if (place?.isOpen) this.#activate(this.#places[place.index + 1]);
    else if (place) this.#toggle(place, true);
  }

  #leave(event, place) {
    if (event.shiftKey) this.#pan(-this.#width / 8);
    else if (place?.isOpen) this.#toggle(place, false);
    else if (place) this.#activate(this.#byId.get(place.row.parent?.id));
  }

  #open(place) {
    if (!place) return;
    const href = this.#href(place.row);
    if (place.children.length) this.#toggle(place);
    else if (href) location.assign(href);
  }
}

let views = 0;

/** The elements of one row. They stay the same while the row is in sight, so that a click that has begun can end. */
class RowView {
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
    const label = element("div", { class: "label", role: "gridcell" }, this.twisty, this.dot, this.name, this.time, this.note);
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
    const notes = graph ? [count(children.length, "child", "children"), failed ? `${failed.toLocaleString()} failed` : `${graph.peak.toLocaleString()} at once`] : [];
    say(this.note, notes.join(", "));
    this.note.classList.toggle("bad", failed > 0);
    say(this.unstarted, length === null ? row.state : "");
    const drawing = graph ? this.graph : this.bar;
    mark(drawing, "aria-label", `${row.name}: ${row.state}${length === null ? "" : `, ${duration(length)}`}${notes.length ? `, ${notes.join(", ")}` : ""}`);
    this.graph.toggleAttribute("hidden", !graph);
    this.bar.hidden = graph !== null || length === null;
  }

  draw({ row }, { from, to, width }) {
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
