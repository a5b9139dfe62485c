import { Away, Missing } from "./backend.js";

/** Seconds until the backend is asked again after it has not answered; the last for ever */
const AWAY = [1, 1, 2, 4, 8, 15];

/**
 * Calls `look` for as long as the page is there: it returns how many milliseconds to wait until the next time.
 *
 * Nothing is asked for while nobody sees the page. What goes wrong is said in `notice`, and what is shown stays.
 * Returns a function that has it look at once.
 */
export function follow(look, notice) {
  let wake = () => {};
  let isWoken = false;
  const sleep = (ms) =>
    new Promise((resolve) => {
      wake = resolve;
      if (ms !== Infinity) setTimeout(resolve, ms);
    });
  const run = async () => {
    let failures = 0;
    for (;;) {
      let pause;
      isWoken = false;
      try {
        pause = await look();
        failures = 0;
        notice.hidden = true;
      } catch (error) {
        const seconds = AWAY[Math.min(failures++, AWAY.length - 1)];
        pause = error instanceof Missing ? Infinity : seconds * 1000;
        notice.textContent =
          error instanceof Away
            ? "The backend does not answer. This is what it said before; it is asked again and again."
            : error.message;
        notice.hidden = false;
      }
      if (!isWoken) await sleep(pause);
      while (document.hidden) await sleep(Infinity);
    }
  };
  document.addEventListener("visibilitychange", () => wake());
  run();
  return () => {
    isWoken = true;
    wake();
  };
}
