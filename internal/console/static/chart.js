// Stacked bars over time, drawn by uPlot.
import { h, short } from "./dom.js";
import { compact } from "./format.js";

const colours = ["#0e7c86", "#d9822b", "#6c5ce7", "#c0392b", "#2e8b57", "#b5651d", "#3867d6", "#8e8e93"];
export const seriesMost = colours.length;

// stacked draws series (name → values) over times (seconds since 1970) and says the
// same in words to those who do not see it.
export function stacked(times, series, { label, width, hourly }) {
  const names = [...series.keys()];
  const totals = times.map(() => 0);
  const sums = names.map((name) => series.get(name).map((v, i) => (totals[i] += v)));
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--dim").trim(), line = style.getPropertyValue("--line").trim();
  const bars = uPlot.paths.bars({ size: [0.7, 60] });
  const holder = h("div", { role: "img", "aria-label": `${label}: ` + (names.map((n) => short(n, 60) + " " + compact(series.get(n).reduce((a, b) => a + b, 0))).join(", ") || "nothing") });
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const options = {
    width: Math.max(280, width), height: 260, cursor: { show: false }, legend: { show: false },
    tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "UTC"),
    scales: { x: { range: (_, from, to) => { const step = hourly ? 3600 : 86400; return [from - step / 2, to + step / 2]; } }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] } },
    axes: [{
      ...axis, incrs: (hourly ? [1, 3, 6, 12, 24] : [24, 48, 168, 336, 720]).map((hours) => hours * 3600),
      values: (_, ticks) => ticks.map((t) => { const iso = new Date(t * 1e3).toISOString(); return hourly ? iso.slice(11, 16) : iso.slice(5, 10); }),
    }, { ...axis, size: 62, values: (_, ticks) => ticks.map((v) => compact(v)) }],
    // The tallest sum is drawn first, the others over it.
    series: [{}, ...names.map((_, i) => names.length - 1 - i).map((i) => ({ fill: colours[i % colours.length], stroke: colours[i % colours.length], width: 0, paths: bars, points: { show: false } }))],
  };
  new uPlot(options, [times, ...sums.slice().reverse()], holder);
  return h("div", {}, holder, h("ul", { class: "legend" }, names.map((name, i) => h("li", {}, h("i", { class: "c" + (i % colours.length) }), short(name || "not said", 60)))));
}
