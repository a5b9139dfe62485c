import { element, name } from "./element.js";

const tenant = location.pathname.split("/").filter(Boolean)[0] ?? "default";

export function flowRunHref(id) {
  return `/${tenant}/flow-run/${encodeURIComponent(id)}`;
}

export function taskRunHref(id) {
  return `/${tenant}/task-run/${encodeURIComponent(id)}`;
}

export function link(href, text) {
  return element("a", { href }, name(text));
}
