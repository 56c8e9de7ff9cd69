// Usage: stacked bars over time, and the table of what is shown.
import { get, query } from "./api.js";
import { h, table, field, short } from "./dom.js";
import { number, compact } from "./format.js";
import { stacked, seriesMost } from "./chart.js";

const spans = { day: ["Last 24 hours", 1, "hour"], week: ["Last 7 days", 7, "day"], month: ["Last 30 days", 30, "day"], quarter: ["Last 90 days", 90, "day"] };

export async function usage(body, signal) {
  const span = field("Time", { value: "week" }, Object.entries(spans).map(([k, v]) => [k, v[0]]));
  const by = field("By", { value: "user" }, [["key", "Key"], ["user", "User"], ["model", "Model"], ["requested_model", "Name asked for"], ["end_user", "End user"]]);
  const what = field("Count", { value: "total_tokens" }, [["total_tokens", "Tokens"], ["prompt_tokens", "Prompt tokens"], ["cached_tokens", "Cached tokens"], ["completion_tokens", "Output tokens"], ["requests", "Requests"], ["errors", "Errors"]]);
  const save = h("button", { type: "button" }, "Save as CSV");
  const chart = h("div", { class: "panel" });
  const list = h("section", {});
  body.replaceChildren(h("div", { class: "row" }, span.label, by.label, what.label, save), h("section", {}, chart), list);
  let shown = [];
  const load = async () => {
    const [, days, unit] = spans[span.control.value];
    const until = new Date();
    const since = new Date(until - days * 86400e3);
    const step = unit === "hour" ? 3600 : 86400;
    since.setUTCMinutes(0, 0, 0);
    if (unit === "day") since.setUTCHours(0);
    const groups = await get("/admin/usage" + query({ by: unit + "," + by.control.value, since: since.toISOString() }));
    if (signal.aborted) return;
    const times = [];
    for (let t = since / 1e3; t <= until / 1e3; t += step) times.push(t);
    shown = sums(groups, by.control.value);
    chart.replaceChildren(groups.length
      ? stacked(times, series(groups, times, unit, by.control.value, what.control.value, shown), { label: "Usage over time", width: chart.clientWidth - 30, hourly: unit === "hour" })
      : h("p", { class: "empty" }, "No requests in this time."));
    list.replaceChildren(tableOf(shown, by.control));
  };
  for (const c of [span, by, what]) c.control.addEventListener("change", () => load().catch((error) => chart.replaceChildren(h("p", { class: "bad", role: "alert" }, error.message))));
  save.addEventListener("click", () => download(shown, by.control.value));
  await load();
}

// series puts the largest names apart and the rest together.
function series(groups, times, unit, by, what, sorted) {
  const large = new Set(sorted.slice(0, seriesMost - 1).map((g) => g.name));
  const at = new Map(times.map((t, i) => [new Date(t * 1e3).toISOString().slice(0, unit === "hour" ? 13 : 10), i]));
  const out = new Map();
  for (const g of groups) {
    const name = large.has(g[by]) ? g[by] : "all others";
    if (!out.has(name)) out.set(name, times.map(() => 0));
    const i = at.get(g[unit]);
    if (i !== undefined) out.get(name)[i] += g[what];
  }
  return out;
}

// counted are the sums of a group, in the order in which they are shown.
const counted = ["requests", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "errors"];

function sums(groups, by) {
  const names = new Map();
  for (const g of groups) {
    const s = names.get(g[by]) || { name: g[by], ...Object.fromEntries(counted.map((k) => [k, 0])) };
    for (const k of counted) s[k] += g[k];
    names.set(g[by], s);
  }
  return [...names.values()].sort((a, b) => b.total_tokens - a.total_tokens);
}

function tableOf(rows, by) {
  const total = Object.fromEntries(counted.map((k) => [k, rows.reduce((n, r) => n + r[k], 0)]));
  return table([
    { name: by.options[by.selectedIndex].text, name_: true, cell: (r) => r.name || "not said" },
    { name: "Requests", num: true, cell: (r) => number(r.requests) },
    { name: "Prompt tokens", num: true, cell: (r) => number(r.prompt_tokens) },
    { name: "Cached", num: true, cell: (r) => number(r.cached_tokens) },
    { name: "Output tokens", num: true, cell: (r) => number(r.completion_tokens) },
    { name: "All tokens", num: true, cell: (r) => number(r.total_tokens) },
    { name: "Errors", num: true, cell: (r) => number(r.errors) },
    { name: "Share", num: true, cell: (r) => (total.total_tokens ? compact((100 * r.total_tokens) / total.total_tokens) + " %" : "–") },
  ], rows.slice(0, 500), { empty: "No requests in this time.", caption: "Usage", foot: ["Total", ...counted.map((k) => number(total[k])), ""] });
}

// inert is text that no spreadsheet computes, as the gateway's own CSV has it.
const inert = (s) => (/^[=+\-@\t\r\n＝＋－＠]/.test(s) ? "'" + s : s);
const cell = (s) => (/[",\n\r]/.test(s) ? '"' + s.replaceAll('"', '""') + '"' : s);

function download(rows, by) {
  const lines = [[by, ...counted], ...rows.map((r) => [inert(r.name), ...counted.map((k) => r[k])])];
  const address = URL.createObjectURL(new Blob([lines.map((l) => l.map((c) => cell(String(c))).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  h("a", { href: address, download: "usage-by-" + short(by, 20) + ".csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
