import { element, facts, name, stateOf } from "./element.js";
import { FINISHED } from "./states.js";
import { duration, instant } from "./words.js";

/** What stands above everything that is told of a run. */
export function heading(run, takenAt, ...more) {
  const { start, end, state, message } = run;
  const isFinished = FINISHED.has(state);
  const until = isFinished ? (end ?? start) : takenAt;
  return element(
    "header",
    { class: "heading" },
    element("h1", {}, name(run.name), stateOf(state)),
    facts([
      ["Flow", name(run.flow)],
      ["Started", start === null ? null : instant(start)],
      ["Duration", start === null ? null : duration(until - start)],
      ["Message", message && name(message)],
      ...more,
    ]),
  );
}
