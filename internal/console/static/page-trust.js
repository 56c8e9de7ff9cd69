// Trust: can the numbers be believed? Each row says what it means and what to do.
import { get, metrics, sum } from "./api.js";
import { h, card, table } from "./dom.js";
import { number, compact } from "./format.js";

export async function trust(body, signal) {
  const families = await metrics();
  if (signal.aborted) return;
  const unmetered = sum(families, "tollgate_unmetered_bytes_total");
  const disagree = sum(families, "tollgate_witness_disagreements_total");
  const backlog = sum(families, "tollgate_ledger_backlog");
  const drift = (families.get("tollgate_engine_token_drift") || []).map((s) => ({ engine: s.labels.engine || "all", model: s.labels.model || "", type: s.labels.type, tokens: s.value }));
  const settled = families.get("tollgate_requests_settled_total") || [];
  const all = settled.reduce((n, s) => n + s.value, 0);
  const result = h("p", { role: "status" });
  const check = (path, what) => h("button", {
    type: "button", onclick: async (event) => {
      event.target.disabled = true;
      result.className = "";
      result.textContent = "Checking …";
      try {
        const answer = await get(path);
        result.className = answer.ok ? "good" : "bad";
        result.textContent = answer.ok ? `${what}: everything holds.` : `${what}: ${answer.message || answer.broken + " violations: " + answer.violations.slice(0, 5).map((v) => `${v.lease_id} ${v.rule}`).join("; ")}`;
      } catch (error) {
        result.className = "bad";
        result.textContent = error.message;
      }
      event.target.disabled = false;
    },
  }, "Check the " + what.toLowerCase());
  body.replaceChildren(
    h("div", { class: "cards" },
      card("Unmetered bytes", number(unmetered), "Bytes of answers that no meter saw. Must be 0.", unmetered ? "bad" : "good"),
      card("Disagreements", number(disagree), "Envoy's log and the meter told two stories of one end.", disagree ? "warn" : "good"),
      card("Waiting for the disk", number(backlog), "Records that are not written yet.", backlog > 100 ? "warn" : "good"),
      card("Settled", compact(all), "requests since the start")),
    h("section", {}, h("h3", {}, "Checks"), h("div", { class: "row" }, check("/admin/ledger/verify", "Ledger"), check("/admin/audit/verify", "Audit")), result),
    h("section", {}, h("h3", {}, "Drift against the engines' own counters"), table([
      { name: "Engine", name_: true, cell: (d) => d.engine }, { name: "Model", name_: true, cell: (d) => d.model || "–" }, { name: "Counter", cell: (d) => d.type },
      { name: "Tokens", num: true, cell: (d) => h("span", { class: d.tokens ? "warn" : "good" }, number(d.tokens)) },
    ], drift, { empty: "Nothing was compared yet.", caption: "Drift" })),
    h("section", {}, h("h3", {}, "How requests ended, and how well they are counted"), table([
      { name: "End", cell: (s) => s.labels.end_reason }, { name: "Quality", cell: (s) => s.labels.quality },
      { name: "Requests", num: true, cell: (s) => number(s.value) }, { name: "Share", num: true, cell: (s) => (all ? ((100 * s.value) / all).toFixed(1) + " %" : "–") },
    ], settled.filter((s) => s.value).sort((a, b) => b.value - a.value), { empty: "Nothing was settled yet.", caption: "Ends and qualities" })),
    await changes());
}

// changes are the last entries of the audit.
async function changes() {
  const { entries } = await get("/admin/audit?limit=30");
  return h("section", {}, h("h3", {}, "Changes"), table([
    { name: "At", cell: (e) => new Date(e.at).toLocaleString() }, { name: "Who", name_: true, cell: (e) => e.who }, { name: "From", cell: (e) => e.from || "–" },
    { name: "What", cell: (e) => e.action }, { name: "Of", name_: true, cell: (e) => e.target },
    { name: "Before", wrap: true, cell: (e) => (e.before ? JSON.stringify(e.before) : "–") }, { name: "After", wrap: true, cell: (e) => (e.after ? JSON.stringify(e.after) : "–") },
  ], entries, { empty: "Nothing was changed.", caption: "Changes" }));
}
