import { element } from "./element.js";

/** A table of items; `columns` are pairs of a title and what stands in it of an item: text or a node. */
export function table(columns, items) {
  const head = columns.map(([title]) => element("th", { scope: "col" }, title));
  const row = (item) =>
    element("tr", {}, ...columns.map(([title, cell]) => element("td", { "data-title": title }, cell(item) ?? "")));
  return element(
    "div",
    { class: "table" },
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...items.map(row))),
  );
}
