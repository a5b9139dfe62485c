import { element, facts, name, stateOf } from "./element.js";
import { FINISHED } from "./states.js";
import { duration, instant } from "./words.js";

/** What stands above everything that is told of a flow run. */
export function heading(flowRun, takenAt, ...more) {
  const { start, end, state, message } = flowRun;
  const isFinished = FINISHED.has(state);
  const until = isFinished ? (end ?? start) : takenAt;
  return element(
    "header",
    { class: "heading" },
    element("h1", {}, name(flowRun.name), stateOf(state)),
    facts([
      ["Flow", name(flowRun.flow)],
      ["Started", start === null ? null : instant(start)],
      ["Duration", start === null ? null : duration(until - start)],
      ["Message", message && name(message)],
      ...more,
    ]),
  );
}
