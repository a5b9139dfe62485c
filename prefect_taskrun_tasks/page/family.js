import { EPOCH, Missing, changes, isId, merge, milliseconds, newest, overlapping, rows } from "./backend.js";
import { shownState } from "./deferral.js";
import { FINISHED } from "./states.js";
import { endOf } from "./times.js";

/** Where a child's context says whose child it is */
const LINEAGE = "prefect_taskrun_tasks";

/** Flow runs whose children are asked for at once */
const PARENTS = 50;

/** Characters, as in a file's picture */
const LONGEST_MESSAGE = 200;

function parentOf(run) {
  return run.context?.[LINEAGE] ?? {};
}

/** A flow run, its task runs, its children, grand-children and so on, as far as they are known so far. */
export class Family {
  flowRuns = new Map();
  taskRuns = new Map();
  #seen = { flow_run: EPOCH, task_run: EPOCH };

  constructor(id) {
    this.id = id;
  }

  get shown() {
    return this.flowRuns.get(this.id);
  }

  get descendants() {
    return [...this.flowRuns.values()].filter((run) => run !== this.shown);
  }

  get isFinished() {
    return [...this.flowRuns.values()].every((run) => FINISHED.has(run.state));
  }

  childrenOf(run) {
    const children = this.descendants.filter((each) => parentOf(each).parent_flow_run_id === run.id);
    return children.sort((a, b) => (a.created < b.created ? -1 : 1));
  }

  /** Asks for what is new. */
  async look() {
    await (this.shown ? this.#flowRunsAgain() : this.#flowRuns());
    const found = await changes("task_run", { flow_run_id: { _eq: this.id } }, overlapping(this.#seen.task_run));
    this.#seen.task_run = newest(found, this.#seen.task_run);
    merge(this.taskRuns, found);
  }

  async #flowRuns() {
    const found = isId(this.id) ? await rows("flow_run", { where: { id: { _eq: this.id } } }) : [];
    if (!found.length) throw new Missing(`There is no flow run ${this.id}.`);
    const [shown] = found;
    // the backend writes ids in one form only
    this.id = shown.id;
    merge(this.flowRuns, found);
    for (let parents = found; parents.length;) {
      const children = [];
      for (let index = 0; index < parents.length; index += PARENTS) {
        const _or = parents
          .slice(index, index + PARENTS)
          .map(({ id }) => ({ context: { _contains: { [LINEAGE]: { parent_flow_run_id: id } } } }));
        // a child is younger than its parent, and most others are not
        children.push(...(await changes("flow_run", { created: { _gte: shown.created }, _or }, EPOCH)));
      }
      parents = children.filter(({ id }) => !this.flowRuns.has(id));
      merge(this.flowRuns, children);
    }
    this.#seen.flow_run = newest([...this.flowRuns.values()]);
  }

  /** Any flow run that has a parent may be one of these by now; few have changed. */
  async #flowRunsAgain() {
    const where = { _or: [{ id: { _eq: this.id } }, { context: { _contains: { [LINEAGE]: {} } } }] };
    const found = await changes("flow_run", where, overlapping(this.#seen.flow_run));
    this.#seen.flow_run = newest(found, this.#seen.flow_run);
    for (let size = -1; size !== this.flowRuns.size;) {
      size = this.flowRuns.size;
      const isOurs = (run) => this.flowRuns.has(run.id) || this.flowRuns.has(parentOf(run).parent_flow_run_id);
      merge(this.flowRuns, found.filter(isOurs));
    }
  }

  /** What the timeline draws; see the package's `page`. */
  picture() {
    const flowRuns = [this.shown, ...this.descendants].map((run) => ({
      id: run.id,
      name: run.name ?? run.id,
      flow: run.flow.name,
      state: run.state,
      message: run.state_message,
      start: milliseconds(run.start_time),
      end: endOf(run),
      parent_flow_run_id: parentOf(run).parent_flow_run_id ?? null,
      parent_task_run_id: parentOf(run).parent_task_run_id ?? null,
      parent_map_index: parentOf(run).parent_map_index ?? null,
    }));
    const taskRuns = [...this.taskRuns.values()].map((run) => [
      run.id,
      run.task.slug,
      run.map_index,
      shownState(run),
      run.state_message?.slice(0, LONGEST_MESSAGE) ?? null,
      milliseconds(run.start_time),
      endOf(run),
    ]);
    return { taken_at: Date.now(), flow_runs: flowRuns, task_runs: taskRuns };
  }
}
