// Keys: who may come in, how much, and for how long.
import { get, call, query } from "./api.js";
import { h, table, dialog, confirm, toast, field, bar, short } from "./dom.js";
import { number, duration, time, ago } from "./format.js";
import { snippets } from "./snippets.js";

export async function keys(body, signal) {
  const list = h("div", {});
  const load = async () => {
    const [known, limits] = await Promise.all([get("/admin/keys"), get("/admin/limits")]);
    if (signal.aborted) return;
    const now = new Map(limits.limits.map((l) => [l.key_id, l]));
    list.replaceChildren(table([
      { name: "Key", name_: true, cell: (k) => k.id },
      { name: "User", name_: true, cell: (k) => k.user },
      { name: "State", cell: (k) => state(k) },
      { name: "Models", wrap: true, cell: (k) => (k.models ? k.models.map((m) => short(m, 60)).join(", ") || "none" : "all") },
      { name: "Slots", cell: (k) => fill(now.get(k.id), "concurrent", "concurrent") },
      { name: "Tokens a minute", cell: (k) => fill(now.get(k.id), "tokens_in_window", "tokens_per_minute") },
      { name: "Quota", cell: (k) => fill(now.get(k.id), "quota_used", "quota") },
      { name: "", cell: (k) => h("button", { class: "small", "aria-label": "Edit key " + short(k.id, 60), onclick: () => edit(k, now.get(k.id), load) }, "Edit") },
    ], known.keys, { empty: "There is no key.", caption: "Keys" }));
  };
  body.replaceChildren(h("div", { class: "row" }, h("button", { class: "main", onclick: () => create(load) }, "New key")), list);
  await load();
}

function state(k) {
  if (!k.enabled) return h("span", { class: "bad" }, k.drain ? "disabled, draining" : "disabled");
  if (k.expires_at && new Date(k.expires_at) <= new Date()) return h("span", { class: "bad" }, "expired");
  if (k.not_before && new Date(k.not_before) > new Date()) return h("span", { class: "warn" }, "from " + time(k.not_before));
  if (k.expires_at) return h("span", { class: "good" }, "until " + time(k.expires_at));
  return h("span", { class: "good" }, k.default ? "enabled, public" : "enabled");
}

function fill(l, used, limit) {
  if (!l) return "–";
  const most = l.limits[limit];
  return h("div", {}, h("div", {}, number(Math.max(0, l.now[used])) + (most === null ? "" : " of " + number(most))), bar(Math.max(0, l.now[used]), most, limit.replaceAll("_", " ")));
}

// limitFields are the controls that a new key and an old one share.
function limitFields(k) {
  const value = (v) => (v === null || v === undefined ? "" : String(v));
  const limits = k.limits || {};
  return {
    concurrent: field("Requests at once", { type: "number", min: "0", value: value(limits.concurrent) }),
    requests_per_minute: field("Requests a minute", { type: "number", min: "0", value: value(limits.requests_per_minute) }),
    tokens_per_minute: field("Tokens a minute", { type: "number", min: "0", value: value(limits.tokens_per_minute) }),
    quota: field("Quota in tokens", { type: "number", min: "0", value: value(k.quota) }),
    quota_period: field("Quota per", { value: k.quota_period || "total" }, [["total", "whole life"], ["month", "month"], ["day", "day"]]),
    models: field("Models, with commas (empty: all)", { value: (k.models || []).join(", "), spellcheck: "false" }),
    expires_at: field("Ends at", { type: "datetime-local", value: k.expires_at ? local(k.expires_at) : "" }),
    note: field("Note", { value: k.note || "" }),
  };
}

const local = (at) => new Date(new Date(at) - new Date().getTimezoneOffset() * 60e3).toISOString().slice(0, 16);

function read(fields, fresh) {
  const n = (f) => (f.control.value === "" ? null : Number(f.control.value));
  for (const f of Object.values(fields)) if (!f.control.reportValidity()) throw new Error("A field is not filled in well.");
  const models = fields.models.control.value.split(",").map((m) => m.trim()).filter(Boolean);
  const limits = {};
  for (const name of ["concurrent", "requests_per_minute", "tokens_per_minute"]) if (!fresh || n(fields[name]) !== null) limits[name] = n(fields[name]);
  const body = { limits, quota: n(fields.quota), quota_period: fields.quota_period.control.value, note: fields.note.control.value };
  if (models.length || !fresh) body.models = models.length ? models : null;
  const end = fields.expires_at.control.value;
  if (end || !fresh) body.expires_at = end ? new Date(end).toISOString() : null;
  return body;
}

const grid = (fields) => h("div", { class: "grid2" }, Object.values(fields).map((f) => f.label));

async function create(done) {
  const user = field("User", { required: true, spellcheck: "false" }), id = field("Id (empty: made for you)", { spellcheck: "false" });
  const fields = limitFields({});
  const made = await dialog("New key", h("div", {}, h("div", { class: "grid2" }, user.label, id.label), grid(fields),
    h("p", { class: "note" }, "An empty limit is the gateway's own. The user “admin” may open this console.")), [
    { text: "Leave it" },
    { text: "Create", class: "main", value: () => {
      if (!user.control.reportValidity()) throw new Error("A user is missing.");
      const body = { user: user.control.value, ...read(fields, true) };
      if (id.control.value) body.id = id.control.value;
      if (body.quota === null) delete body.quota;
      if (!body.note) delete body.note;
      return call("POST", "/admin/keys", { body });
    } },
  ]);
  if (!made) return;
  await done();
  await showSecret(made, "This is the only time that the key is shown.");
}

function showSecret(made, text) {
  const shown = h("pre", { tabindex: "0", class: "secret" }, made.key);
  return dialog("Key " + short(made.id, 60), h("div", {}, h("p", {}, text), shown,
    h("button", { type: "button", onclick: async () => { await navigator.clipboard.writeText(made.key).then(() => toast("Copied."), () => toast("The browser does not let this page copy; select the text.", true)); } }, "Copy"),
    snippets()), [{ text: "I have it", class: "main" }]);
}

async function edit(k, limits, done) {
  const path = "/admin/keys/" + encodeURIComponent(k.id);
  const used = await get("/admin/ledger" + query({ key: k.id, limit: 1 }));
  const fields = limitFields(k);
  const reset = limits && limits.now.quota_period !== "total" ? ` The quota counts ${limits.now.quota_period}.` : "";
  const act = async (what) => { await what(); await done(); return true; };
  await dialog("Key " + short(k.id, 60), h("div", {},
    h("p", { class: "note" }, `User ${short(k.user, 60)}. `, used.requests.length ? "Last used " + ago(used.requests[0].started_at) + "." : "Never used.", reset),
    grid(fields),
    h("div", { class: "row" },
      h("button", { type: "button", onclick: () => rotate(k, done) }, "Rotate …"),
      h("button", { type: "button", class: "danger", onclick: () => remove(k, done) }, "Delete …"))), [
    { text: "Close" },
    k.enabled
      ? { text: "Disable", class: "danger", value: () => act(() => call("PATCH", path, { body: { enabled: false } })) }
      : { text: "Enable", value: () => act(() => call("PATCH", path, { body: { enabled: true } })) },
    { text: "Save", class: "main", value: () => act(() => call("PATCH", path, { body: read(fields, false) })) },
  ]);
}

async function rotate(k, done) {
  const grace = field("The old secret works for", { value: "24h" }, [["24h", "24 hours more"], ["1h", "one hour more"], ["168h", "7 days more"], ["0s", "no longer: it leaked"]]);
  const made = await dialog("Rotate " + short(k.id, 60), h("div", {}, h("p", {}, "The key keeps its name, limits and counters and gets a new secret."), grace.label), [
    { text: "Leave it" },
    { text: "Rotate", class: "main", value: () => call("POST", "/admin/keys/" + encodeURIComponent(k.id) + "/rotate" + query({ grace: grace.control.value })) },
  ]);
  if (!made) return;
  await done();
  const hours = parseInt(grace.control.value, 10);
  await showSecret(made, hours ? `This is the only time that the new secret is shown. The old one ends in ${duration(hours * 3600e3)}, at ${time(Date.now() + hours * 3600e3)}.` : "This is the only time that the new secret is shown. The old one has ended.");
}

async function remove(k, done) {
  if (!(await confirm(`Delete ${short(k.id, 60)}?`, "Its streams are cut now. What it used stays in the ledger. Disabling it can be taken back, this cannot.", "Delete it"))) return;
  try {
    await call("DELETE", "/admin/keys/" + encodeURIComponent(k.id));
    toast("The key is gone.");
    document.querySelectorAll("dialog").forEach((d) => d.dispatchEvent(new Event("cancel", { cancelable: true })));
    await done();
  } catch (error) {
    toast(error.message, true);
  }
}
