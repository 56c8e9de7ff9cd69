// Keys: who may come in, how much, and for how long.
import { get, call, query } from "./api.js";
import { h, table, dialog, confirm, toast, field, bar, short } from "./dom.js";
import { number, duration, time, ago } from "./format.js";
import { snippets } from "./snippets.js";

export async function keys(body, signal) {
  const list = h("div", {});
  const load = async () => {
    // Only the gateway knows whether the public key still opens anything.
    const [known, limits, health] = await Promise.all([get("/admin/keys"), get("/admin/limits"), get("/health").catch(() => ({}))]);
    if (signal.aborted) return;
    const now = new Map(limits.limits.map((l) => [l.key_id, l]));
    list.replaceChildren(table([
      { name: "Key", name_: true, cell: (k) => k.id },
      { name: "User", name_: true, cell: (k) => k.user },
      { name: "State", cell: (k) => state(k, health.default_key) },
      { name: "Models", wrap: true, cell: (k) => (k.models ? k.models.map((m) => short(m, 60)).join(", ") || "none" : "all") },
      { name: "Slots", cell: (k) => fill(now.get(k.id), "concurrent", "concurrent") },
      { name: "Requests a minute", cell: (k) => fill(now.get(k.id), "requests_in_window", "requests_per_minute") },
      { name: "Tokens a minute", cell: (k) => fill(now.get(k.id), "tokens_in_window", "tokens_per_minute") },
      { name: "Quota", cell: (k) => fill(now.get(k.id), "quota_used", "quota") },
      { name: "", cell: (k) => h("button", { class: "small", "aria-label": "Edit key " + short(k.id, 60), onclick: () => edit(k, now.get(k.id), load) }, "Edit") },
    ], known.keys, { empty: "There is no key.", caption: "Keys" }));
  };
  body.replaceChildren(h("div", { class: "row" }, h("button", { class: "main", onclick: () => create(load) }, "New key")), list);
  await load();
}

function state(k, isPublic) {
  if (!k.enabled) return h("span", { class: "bad" }, k.drain ? "disabled, draining" : "disabled");
  if (k.default && isPublic === false) return h("span", { class: "warn" }, "void, public: other keys exist");
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
  // null is "unlimited" in the key's own words; absent is the gateway's limit.
  const limit = (label, name) => field(label, { type: "number", min: "0", value: value(limits[name]), placeholder: limits[name] === null ? "unlimited" : "the gateway's" });
  return {
    concurrent: limit("Requests at once", "concurrent"),
    requests_per_minute: limit("Requests a minute", "requests_per_minute"),
    tokens_per_minute: limit("Tokens a minute", "tokens_per_minute"),
    quota: field("Quota in tokens", { type: "number", min: "0", value: value(k.quota) }),
    quota_period: field("Quota per", { value: k.quota_period || "total" }, [["total", "whole life"], ["month", "month"], ["day", "day"]]),
    models: field("Models, with commas (empty: all)", { value: (k.models || []).join(", "), spellcheck: "false" }),
    expires_at: field("Ends at", { type: "datetime-local", value: k.expires_at ? local(k.expires_at) : "" }),
    trust_end_user: field("People behind the key", { value: String(!!k.trust_end_user) }, [["false", "one: the user"], ["true", "several: it names them"]]),
    note: field("Note", { value: k.note || "" }),
  };
}

const local = (at) => new Date(new Date(at) - new Date().getTimezoneOffset() * 60e3).toISOString().slice(0, 16);

const limitNames = ["concurrent", "requests_per_minute", "tokens_per_minute"];

// check lets the browser say what is not filled in well.
function check(fields) {
  for (const f of Object.values(fields)) if (!f.control.reportValidity()) throw new Error("A field is not filled in well.");
}

const values = (fields) => Object.fromEntries(Object.entries(fields).map(([name, f]) => [name, f.control.value.trim()]));
const count = (text) => (text === "" ? null : Number(text));

// meant is a body of the API for what the fields say and said before.
function meant(now, before = {}) {
  const body = {}, limits = {};
  const differs = (name) => now[name] !== (before[name] ?? "");
  for (const name of limitNames) if (differs(name) && now[name] !== "") limits[name] = count(now[name]);
  if (Object.keys(limits).length) body.limits = limits;
  if (differs("quota")) body.quota = count(now.quota);
  if (now.quota_period !== (before.quota_period ?? "total")) body.quota_period = now.quota_period;
  if (differs("models")) body.models = now.models ? now.models.split(",").map((m) => m.trim()).filter(Boolean) : null;
  if (differs("expires_at")) body.expires_at = now.expires_at ? new Date(now.expires_at).toISOString() : null;
  if (now.trust_end_user !== (before.trust_end_user ?? "false")) body.trust_end_user = now.trust_end_user === "true";
  if (differs("note")) body.note = now.note;
  return body;
}

// save writes what was changed. A limit that was emptied goes back to the gateway's:
// the API can only take all limits of a key away, so the others are set again.
async function save(path, now, before) {
  const body = meant(now, before);
  if (limitNames.some((name) => before[name] !== "" && now[name] === "")) {
    await call("PATCH", path, { body: { limits: null } });
    body.limits = Object.fromEntries(limitNames.filter((name) => now[name] !== "").map((name) => [name, count(now[name])]));
  }
  if (Object.keys(body).length) await call("PATCH", path, { body });
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
      check(fields);
      const body = { user: user.control.value.trim(), ...meant(values(fields)) };
      if (id.control.value) body.id = id.control.value.trim();
      return call("POST", "/admin/keys", { body });
    } },
  ]);
  if (!made) return;
  await done();
  await showSecret(made, "This is the only time that the key is shown.");
}

function showSecret(made, text) {
  const shown = h("pre", { tabindex: "0", role: "region", "aria-label": "The key", class: "secret" }, made.key);
  return dialog("Key " + short(made.id, 60), h("div", {}, h("p", {}, text), shown,
    h("button", { type: "button", onclick: async () => { await navigator.clipboard.writeText(made.key).then(() => toast("Copied."), () => toast("The browser does not let this page copy; select the text.", true)); } }, "Copy"),
    snippets()), [{ text: "I have it", class: "main" }]);
}

async function edit(k, limits, done) {
  const path = "/admin/keys/" + encodeURIComponent(k.id);
  const used = await get("/admin/ledger" + query({ key: k.id, limit: 1 }));
  const fields = limitFields(k), before = values(fields);
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
    { text: "Save", class: "main", value: () => { check(fields); return act(() => save(path, values(fields), before)); } },
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
