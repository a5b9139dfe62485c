/** Makes an element. Children that are text stay text: whatever a user has named cannot become markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Sets a text only if it is another, so that a selection and a screen reader's place survive. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The same for an attribute; null takes it away. */
export function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** A name that somebody chose. It is kept from reversing what stands around it. */
export function name(text) {
  return element("bdi", {}, text);
}

/** A state, as its colour and its name. */
export function stateOf(state) {
  return element("span", { class: "state", "data-state": state }, element("i", { class: "dot" }), state);
}

/** Terms and what they are, such as ["State", "Running"]; those that are null are left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined);
  const rows = known.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)));
  return element("dl", { class: "facts" }, ...rows);
}

/** Gives a node these children. Nodes that are the same already stay: what is clicked on, selected or has the focus. */
export function fill(node, ...children) {
  children.forEach((fresh, index) => {
    const old = node.childNodes[index];
    if (!old) node.append(fresh);
    else if (old.isEqualNode(fresh)) return;
    else if (fresh.childNodes.length && old.cloneNode().isEqualNode(fresh.cloneNode())) fill(old, ...fresh.childNodes);
    else old.replaceWith(fresh);
  });
  while (node.childNodes.length > children.length) node.lastChild.remove();
}
