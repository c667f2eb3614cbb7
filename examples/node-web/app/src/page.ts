const DAY = 24 * 60 * 60 * 1000;

/** A day's number in its year, and how many days the year has left. */
export function dayOfYear(date: Date): { number: number; left: number } {
  const start = Date.UTC(date.getUTCFullYear(), 0, 1);
  const end = Date.UTC(date.getUTCFullYear() + 1, 0, 1);
  const number = Math.floor((date.getTime() - start) / DAY) + 1;
  return { number, left: (end - start) / DAY - number };
}

/** The page about a day. */
export function page(date: Date): string {
  const { number, left } = dayOfYear(date);
  return `<!doctype html><title>Almanac</title><p>Day ${number}; ${left} to go.</p>`;
}
