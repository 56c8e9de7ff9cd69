// Now: is everything well, and what happened since somebody looked last.
import { get, metrics, sum, quantile, query } from "./api.js";
import { h, card, table, short } from "./dom.js";
import { number, compact, duration, ago, time } from "./format.js";
import { poll } from "./poll.js";

// When this browser looked last. A time and nothing else: no key is ever stored.
const lookKey = "tollgate.looked";
const firstLook = localStorage.getItem(lookKey);

export async function now(body, signal) {
  const before = new Map(); // tokens of running requests at the last round
  let last = 0, first = null;
  const news = h("section", {}, h("h3", {}, "Since the last look"));
  const cards = h("div", { class: "cards" });
  const refused = h("section", {});
  const engines = h("section", {});
  body.replaceChildren(cards, news, engines, refused);
  await Promise.all([since(news), poll(signal, 2000, async () => {
    const [health, running, families] = await Promise.all([getHealth(), get("/admin/requests"), metrics()]);
    first ??= families;
    const at = performance.now();
    let moved = 0;
    for (const r of running.requests) {
      const used = Math.max(0, r.completion_tokens);
      if (before.has(r.lease_id)) moved += Math.max(0, used - before.get(r.lease_id));
      before.set(r.lease_id, used);
    }
    const alive = new Set(running.requests.map((r) => r.lease_id));
    for (const lease of before.keys()) if (!alive.has(lease)) before.delete(lease);
    const rate = last ? moved / ((at - last) / 1000) : null;
    last = at;
    showCards(cards, health, running, families, rate);
    showEngines(engines, health, families);
    showRefused(refused, families, first);
  })]);
}

// getHealth answers while nothing is ready too: then its status is no error to a person.
async function getHealth() {
  try {
    return await get("/health");
  } catch (error) {
    if (error.status === 503) return { status: "unavailable", vllm: [] };
    throw error;
  }
}

const kinds = { ok: "good", degraded: "warn", unavailable: "bad" };

function showCards(cards, health, running, families, rate) {
  const ttft = (q) => duration(1000 * (quantile(families, "tollgate_time_to_first_token_seconds", q) ?? NaN));
  const unmetered = sum(families, "tollgate_unmetered_bytes_total");
  cards.replaceChildren(
    card("Health", health.status, `${health.vllm.filter((v) => v.ready).length} of ${health.vllm.length} engines are ready`, kinds[health.status]),
    card("Live streams", number(running.requests.length), `${number(sum(families, "tollgate_slots_taken"))} slots taken`),
    card("Tokens per second", rate === null ? "…" : compact(rate), "of the requests that run now"),
    card("Time to first token", ttft(0.5), `95 % within ${ttft(0.95)}, since the start`),
    card("Requests", compact(sum(families, "http_requests_total")), "since the start"),
    card("Unmetered bytes", number(unmetered), unmetered ? "this must be 0: see Trust" : "as it must be", unmetered ? "bad" : "good"));
}

function showEngines(section, health, families) {
  const names = [...new Set((families.get("tollgate_engine_up") || []).map((s) => s.labels.engine))];
  section.replaceChildren(h("h3", {}, "Engines"), table([
    { name: "Engine", name_: true, cell: (e) => e },
    { name: "State", cell: (e) => (sum(families, "tollgate_engine_up", { engine: e }) ? h("span", { class: "good" }, "ready") : h("span", { class: "bad" }, "not ready")) },
    { name: "Load", num: true, cell: (e) => compact(sum(families, "tollgate_engine_load", { engine: e })) },
  ], names, { empty: "No engine is known.", caption: "Engines" }));
}

function showRefused(section, families, first) {
  const rows = (families.get("tollgate_admission_decisions_total") || [])
    .filter((s) => s.labels.decision !== "admitted" && s.value > 0)
    .map((s) => ({ limit: s.labels.decision, all: s.value, now: s.value - sum(first, "tollgate_admission_decisions_total", s.labels) }))
    .sort((a, b) => b.now - a.now || b.all - a.all);
  section.replaceChildren(h("h3", {}, "Refused"), table([
    { name: "By", cell: (r) => r.limit.replaceAll("_", " ") },
    { name: "While this page is open", num: true, cell: (r) => number(r.now) },
    { name: "Since the start", num: true, cell: (r) => number(r.all) },
  ], rows, { empty: "Nothing was refused.", caption: "Refused requests" }));
}

// since shows what went wrong and what was changed after the last look.
async function since(section) {
  const from = firstLook && !Number.isNaN(Date.parse(firstLook)) ? firstLook : new Date(Date.now() - 86400e3).toISOString();
  localStorage.setItem(lookKey, new Date().toISOString());
  const bad = ["envoy_crash", "gateway_crash", "upstream_error", "upstream_abort", "engine_abort", "timeout", "revoked", "quota"];
  const [audit, ...ends] = await Promise.all([
    get("/admin/audit?limit=50"),
    ...bad.map((reason) => get("/admin/ledger" + query({ end_reason: reason, since: from, limit: 200 }))),
  ]);
  const items = [];
  bad.forEach((reason, i) => {
    const n = ends[i].requests.length;
    if (n) items.push(h("li", {}, `${n === 200 ? "200 or more" : n} ${n === 1 ? "request" : "requests"} ended as `, h("code", {}, reason), ", the last one ", ago(ends[i].requests[0].started_at)));
  });
  for (const e of audit.entries.filter((e) => e.at > from)) {
    items.push(h("li", {}, short(e.who, 60), ": ", h("code", {}, e.action), " ", short(e.target, 80), ", ", ago(e.at)));
  }
  section.append(h("div", { class: "panel" },
    h("div", { class: "note" }, firstLook ? "Since " + time(from) : "In the last 24 hours; this browser has not looked before."),
    items.length ? h("ul", {}, items) : h("p", {}, "Nothing that needs a look.")));
}
