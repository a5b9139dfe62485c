/** What a task run says that waits for a flow run without a process; see the package's `tasks.deferring`. */
const WAITS = /^Waiting for flow run .* without a process\.$/s;

/** The state of a task run, as people are to see it. */
export function shownState(run) {
  return run.state === "Scheduled" && WAITS.test(run.state_message ?? "") ? "Deferred" : run.state;
}
