// Numbers and times as people read them.
const whole = new Intl.NumberFormat("en");
export const number = (n) => (n === null || n === undefined ? "–" : whole.format(Math.round(n)));

export function compact(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return "–";
  for (const [unit, name] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(n) >= unit) return (n / (name === "k" ? 1e3 : unit)).toFixed(1) + " " + name;
  }
  return Math.abs(n) < 10 && n % 1 ? n.toFixed(1) : whole.format(Math.round(n));
}

export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms < 1000) return Math.round(ms) + " ms";
  if (ms < 60e3) return (ms / 1e3).toFixed(1) + " s";
  if (ms < 3600e3) return Math.floor(ms / 60e3) + " min " + Math.round((ms % 60e3) / 1e3) + " s";
  if (ms < 48 * 3600e3) return Math.floor(ms / 3600e3) + " h " + Math.round((ms % 3600e3) / 60e3) + " min";
  return Math.round(ms / 86400e3) + " days";
}

export const time = (at) => (at ? new Date(at).toLocaleString() : "–");
export const ago = (at) => (at ? duration(Date.now() - new Date(at)) + " ago" : "–");
export const bytes = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + " GB" : n >= 1e6 ? (n / 1e6).toFixed(1) + " MB" : number(n / 1e3) + " kB");
