/** Milliseconds that are seen at least */
const SHORTEST = 10;

/** The part of the time that is seen: `from` and `to`, between `origin` and `end`. All of it, unless one has zoomed. */
export class TimeWindow {
  origin = 0;
  end = 1;
  from = 0;
  to = 1;
  #isAll = true;

  /** There is something to see from `origin` to `end`. */
  reach(origin, end) {
    this.origin = origin;
    this.end = Math.max(end, origin + 1);
    this.#see(this.from, this.#isAll ? Infinity : this.to - this.from);
  }

  /** Shows `factor` times as much, and leaves the moment that is `share` of the width from the left where it is. */
  zoom(factor, share = 0.5) {
    const before = this.to - this.from;
    const length = this.#possible(before * factor);
    this.#see(this.from + share * (before - length), length);
  }

  /** Goes on by a part of what is seen. */
  pan(share) {
    const length = this.to - this.from;
    this.#see(this.from + share * length, length);
  }

  #possible(length) {
    return Math.min(Math.max(length, SHORTEST), this.end - this.origin);
  }

  #see(from, length) {
    const possible = this.#possible(length);
    this.from = Math.min(Math.max(from, this.origin), this.end - possible);
    this.to = this.from + possible;
    this.#isAll = possible === this.end - this.origin;
  }
}
