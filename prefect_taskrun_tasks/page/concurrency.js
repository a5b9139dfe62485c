import { FAILED } from "./states.js";

/** Pixels that a failure takes at least, however many did not fail */
const LEAST = 3;

/** How many of several rows ran at once, by state, over time. */
export class Concurrency {
  constructor(rows) {
    const started = rows.filter((row) => row.start !== null);
    const found = new Set(started.map((row) => row.state));
    /** failures first, for they are drawn at the bottom */
    this.states = [...found].sort((a, b) => FAILED.has(b) - FAILED.has(a) || (a < b ? -1 : 1));
    const events = started.flatMap((row) => {
      const state = this.states.indexOf(row.state);
      // one that took no time ran all the same
      const end = Math.max(row.end, row.start + 1);
      return [
        { at: row.start, state, change: 1 },
        { at: end, state, change: -1 },
      ];
    });
    // of those at the same time, the ends of those before come first
    events.sort((a, b) => a.at - b.at || a.change - b.change);
    this.times = Float64Array.from(events, (event) => event.at);
    /** by state, the number that ran from the event on */
    this.counts = this.states.map(() => new Int32Array(events.length));
    this.totals = new Int32Array(events.length);
    const now = this.states.map(() => 0);
    events.forEach((event, index) => {
      now[event.state] += event.change;
      now.forEach((number, state) => (this.counts[state][index] = number));
      this.totals[index] = now.reduce((sum, number) => sum + number, 0);
    });
    this.peak = this.totals.reduce((most, total) => Math.max(most, total), 0);
  }

  /**
   * A path for each state, in the order in which they are to be drawn: each covers the upper part of the one before.
   *
   * Every pixel shows the moment in it at which most ran, and that something failed in it if anything did.
   */
  paths(from, to, width, height) {
    const columns = Math.max(0, Math.ceil(width));
    const tops = this.states.map(() => new Float32Array(columns));
    let next = this.#after(from);
    for (let column = 0; column < columns; column++) {
      const until = from + ((column + 1) * (to - from)) / width;
      let busiest = next - 1;
      const first = next;
      for (; next < this.times.length && this.times[next] < until; next++) {
        if (busiest < 0 || this.totals[next] > this.totals[busiest]) busiest = next;
      }
      if (busiest < 0) continue;
      let sum = 0;
      this.states.forEach((state, index) => {
        sum += this.counts[index][busiest];
        let top = (sum / this.peak) * height;
        if (FAILED.has(state) && top < LEAST) {
          const counts = this.counts[index].subarray(Math.max(0, first - 1), next);
          if (counts.some((number) => number > 0)) top = LEAST;
        }
        tops[index][column] = top;
      });
    }
    return this.states.map((state, index) => ({ state, d: area(tops[index], height) })).reverse();
  }

  /** The first event after a moment */
  #after(moment) {
    let [low, high] = [0, this.times.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle] <= moment) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The outline of what is below `tops`, pixel by pixel. */
function area(tops, height) {
  let d = `M0 ${height}`;
  let last = 0;
  tops.forEach((top, column) => {
    if (top === last) return;
    d += `H${column}V${(height - top).toFixed(1)}`;
    last = top;
  });
  return `${d}H${tops.length}V${height}Z`;
}
