import { Concurrency } from "./concurrency.js";
import { element, facts, fill, mark, name, say, stateOf } from "./element.js";
import { earliest, latest, rowsOf, statesOf, visible, withAllBelow } from "./rows.js";
import { RowView } from "./row_view.js";
import { TimeWindow } from "./time_window.js";
import { duration, instant, ticks } from "./words.js";

/** Pixels: heights of rows, what ticks are apart at least, and how far a drag goes before it is one */
const ROW = 24;
const CLOSED_GROUP = 56;
const BETWEEN_TICKS = 90;
const DRAG = 4;

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
  #drawn = new Map();
  #activeId = null;
  #hovered = null;
  #window = new TimeWindow();
  #width = 0;
  #isDue = false;
  #pointers = new Map();
  #dragged = false;

  constructor(parent, { href = () => null } = {}) {
    this.#href = href;
    this.filter = element("input", {
      type: "search",
      placeholder: "Filter",
      "aria-label": "Filter by name",
      input: () => this.#arrange(),
    });
    this.legend = element("div", { class: "legend", role: "group", "aria-label": "Show only one state" });
    const button = (label, title, click) =>
      element("button", { type: "button", title, "aria-label": title, click }, label);
    const zooms = element(
      "div",
      { class: "zooms", role: "group", "aria-label": "Zoom" },
      button("−", "Zoom out", () => this.#zoom(2)),
      button("+", "Zoom in", () => this.#zoom(0.5)),
      button("Fit", "Show all", () => this.#zoom(Infinity)),
    );
    this.axis = element("div", { class: "ticks" });
    this.lines = element("div", { class: "lines", "aria-hidden": "true" });
    this.body = element("div", { class: "rows", role: "rowgroup" }, this.lines);
    this.chart = element(
      "div",
      {
        class: "chart",
        role: "treegrid",
        tabindex: 0,
        "aria-busy": "true",
        "aria-label": "Runs over time",
        "aria-describedby": "timeline-keys",
      },
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
    const all = withAllBelow(this.#rows);
    const origin = earliest(all) ?? picture.taken_at;
    this.#window.reach(origin, latest(all) ?? origin);
    this.#count(all.filter((row) => row.kind === "task run"));
    this.#arrange();
  }

  #count(taskRuns) {
    const buttons = statesOf(taskRuns).map(([state, number]) =>
      element(
        "button",
        {
          type: "button",
          "data-state": state,
          "aria-pressed": state === this.#onlyState,
          click: () => this.#only(state),
        },
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
    if (!this.#graphs.has(row.id))
      this.#graphs.set(row.id, new Concurrency(children.filter((each) => each.kind === "task run")));
    return this.#graphs.get(row.id);
  }

  #toggle(place, isOpen = !place.isOpen) {
    if (!place.children.length || place.isOpen === isOpen) return;
    this.#opened.set(place.row.id, isOpen);
    this.#arrange();
  }

  #zoom(factor, share) {
    this.#window.zoom(factor, share);
    this.#redraw();
  }

  #pan(pixels) {
    this.#window.pan(pixels / this.#width);
    this.#redraw();
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
    const seen = new Set();
    for (const place of this.#places.slice(this.#placeAt(scrollTop))) {
      if (place.top >= scrollTop + clientHeight) break;
      seen.add(place.row.id);
      let view = this.#drawn.get(place.row.id);
      if (!view) {
        view = new RowView(this.#href(place.row));
        this.#drawn.set(place.row.id, view);
        this.body.append(view.element);
      }
      view.show(place, place.row.id === this.#activeId, place.height === CLOSED_GROUP ? this.#graph(place) : null);
      view.draw(place, this.#window, this.#width);
    }
    for (const [id, view] of this.#drawn) {
      if (seen.has(id)) continue;
      view.element.remove();
      this.#drawn.delete(id);
    }
    mark(this.chart, "aria-activedescendant", this.#drawn.get(this.#activeId)?.element.id ?? null);
    this.#drawAxis();
    // what is drawn now is on the screen when the next frame begins
    if (this.chart.ariaBusy === "true") requestAnimationFrame(() => this.#ready());
  }

  #ready() {
    performance.mark("drawn");
    this.chart.ariaBusy = "false";
  }

  #drawAxis() {
    const { from, to, origin } = this.#window;
    const scale = this.#width / (to - from);
    const marks = ticks(from - origin, to - origin, BETWEEN_TICKS / scale);
    for (const [parent, kind] of [
      [this.axis, "tick"],
      [this.lines, "line"],
    ]) {
      while (parent.children.length > marks.length) parent.lastChild.remove();
      while (parent.children.length < marks.length) parent.append(element("div", { class: kind }));
      marks.forEach(({ at, text }, index) => {
        const each = parent.children[index];
        each.style.transform = `translateX(${(at + origin - from) * scale}px)`;
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

  /** The details of the active row. A screen reader reads them out if it is another, or in another state. */
  #tell() {
    const place = this.#byId.get(this.#activeId);
    const said = place ? `${place.row.id} ${place.row.state}` : "";
    this.details.ariaLive = this.details.dataset.of === said ? "off" : "polite";
    this.details.dataset.of = said;
    fill(this.details, ...(place ? this.#describe(place) : []));
  }

  #describe(place) {
    const { row, children } = place;
    const href = this.#href(row);
    const counts = row.isMapped
      ? statesOf(children).map(([state, number]) => `${number.toLocaleString()} ${state}`)
      : [];
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
    if (this.#hovered !== place) this.tooltip.replaceChildren(...this.#describe(place));
    this.#hovered = place;
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
    const move = (by) =>
      this.#activate(this.#places[Math.min(Math.max((place?.index ?? -1) + by, 0), this.#places.length - 1)]);
    const page = Math.max(1, Math.floor(this.chart.clientHeight / ROW) - 2);
    const keys = {
      "+": () => this.#zoom(0.5),
      "=": () => this.#zoom(0.5),
      "-": () => this.#zoom(2),
      0: () => this.#zoom(Infinity),
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
