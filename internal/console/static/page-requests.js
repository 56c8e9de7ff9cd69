// Requests: the ledger's rows, newest first, and the line of one request's life.
import { get, query } from "./api.js";
import { h, table, dialog, field, short } from "./dom.js";
import { number, duration, time } from "./format.js";

const reasons = ["", "complete", "refused", "client_abort", "upstream_abort", "timeout", "aborted", "upstream_error", "engine_abort", "cancelled", "revoked", "drained", "quota", "gateway_crash", "envoy_crash"];

export async function requests(body, signal) {
  const id = field("Request id", { type: "search", placeholder: "x-request-id", spellcheck: "false" });
  const key = field("Key", { type: "search", spellcheck: "false" });
  const model = field("Model", { type: "search", spellcheck: "false" });
  const reason = field("End", { value: "" }, reasons.map((r) => [r, r || "any"]));
  const list = h("div", {}), more = h("button", { type: "button" }, "Older ones");
  let rows = [], cursor = null;
  const load = async (next) => {
    const page = await get("/admin/ledger" + query({
      limit: 50, cursor: next ? cursor : "", request_id: id.control.value.trim(), key: key.control.value.trim(), model: model.control.value.trim(), end_reason: reason.control.value,
    }));
    if (signal.aborted) return;
    rows = next ? rows.concat(page.requests) : page.requests;
    cursor = page.next_cursor;
    more.hidden = !cursor;
    list.replaceChildren(rowsTable(rows, true));
  };
  const failed = (error) => list.replaceChildren(h("p", { class: "bad", role: "alert" }, error.message));
  more.addEventListener("click", () => load(true).catch(failed));
  body.replaceChildren(h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); load(false).catch(failed); } },
    id.label, key.label, model.label, reason.label, h("button", { class: "main", type: "submit" }, "Search")), list, h("p", {}, more));
  await load(false);
}

const kind = { complete: "good", refused: "warn", client_abort: "warn", cancelled: "warn", drained: "warn", quota: "warn" };

export function rowsTable(rows, withKey) {
  return table([
    { name: "Started", cell: (r) => time(r.started_at) },
    ...(withKey ? [{ name: "Key", name_: true, cell: (r) => r.key_id }, { name: "User", name_: true, cell: (r) => r.end_user || r.user }] : []),
    { name: "Model", name_: true, cell: (r) => r.requested_model || r.model },
    { name: "End", cell: (r) => h("span", { class: r.end_reason ? kind[r.end_reason] || "bad" : "" }, r.end_reason || "running") },
    { name: "Status", num: true, cell: (r) => String(r.status || "–") },
    { name: "Prompt", num: true, cell: (r) => number(r.prompt_tokens) },
    { name: "Output", num: true, cell: (r) => number(r.completion_tokens) },
    { name: "Took", num: true, cell: (r) => (r.ended_at ? duration(new Date(r.ended_at) - new Date(r.started_at)) : "–") },
    { name: "", cell: (r) => h("button", { class: "small", "aria-label": "Show request " + short(r.request_id, 60), onclick: () => show(r) }, "Show") },
  ], rows, { empty: "No request in the ledger fits.", caption: "Requests" });
}

function show(r) {
  const start = new Date(r.started_at), first = r.first_byte_at && new Date(r.first_byte_at), end = r.ended_at ? new Date(r.ended_at) : new Date();
  const whole = Math.max(1, end - start);
  const part = (ms, colour) => { const s = h("span", { class: colour }); s.style.width = (100 * ms) / whole + "%"; return s; };
  const fields = Object.entries(r).filter(([, v]) => v !== null && v !== "");
  return dialog("Request " + short(r.request_id, 60), h("div", {},
    h("p", {}, first ? `Waited ${duration(first - start)} for its first byte, then answered for ${duration(end - first)}.` : `No byte of an answer in ${duration(end - start)}.`,
      r.end_reason ? ` It ended as “${r.end_reason}”, counted ${r.quality}.` : " It runs."),
    h("div", { class: "life", role: "img", "aria-label": "Waiting, then answering" }, part((first || end) - start, "c1"), first ? part(end - first, "c0") : null),
    table([{ name: "Column", cell: (f) => f[0].replaceAll("_", " ") }, { name: "Value", wrap: true, cell: (f) => String(f[1]) }], fields, { caption: "All columns" })),
  [{ text: "Close" }]);
}
