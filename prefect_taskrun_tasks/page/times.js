import { milliseconds } from "./backend.js";
import { FINISHED } from "./states.js";

/** When a run of the API entered its final state, in milliseconds since 1970; null if it has not finished. */
export function endOf(run) {
  // not `end_time`: Prefect Server sets none for some final states, and keeps that of one that was not the last
  return FINISHED.has(run.state) ? milliseconds(run.state_timestamp) : null;
}
