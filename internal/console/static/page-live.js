// Live: what runs now. One request can be cut, or a key with all that it runs.
import { get, call } from "./api.js";
import { h, table, confirm, toast, short } from "./dom.js";
import { number, duration } from "./format.js";
import { poll } from "./poll.js";

export async function live(body, signal) {
  const filter = h("input", { type: "search", "aria-label": "Show only", placeholder: "key, user or model" });
  const count = h("p", { class: "note", role: "status" });
  const list = h("div", {});
  let rows = [];
  const show = () => {
    const want = filter.value.toLowerCase();
    const shown = rows.filter((r) => [r.key_id, r.user, r.end_user, r.model, r.request_id].some((v) => (v || "").toLowerCase().includes(want)));
    count.textContent = `${number(shown.length)} of ${number(rows.length)} running requests`;
    list.replaceChildren(table([
      { name: "Key", name_: true, cell: (r) => r.key_id },
      { name: "User", name_: true, cell: (r) => r.end_user || r.user },
      { name: "Model", name_: true, cell: (r) => r.model },
      { name: "Endpoint", cell: (r) => r.endpoint },
      { name: "Age", num: true, cell: (r) => duration(Date.now() - new Date(r.started_at)) },
      { name: "Prompt", num: true, cell: (r) => number(r.prompt_tokens) },
      { name: "Output", num: true, cell: (r) => number(r.completion_tokens) },
      { name: "", cell: (r) => h("span", {},
        h("button", { class: "small danger", "aria-label": "Cut request " + short(r.request_id, 60), onclick: () => cut(r) }, "Cut"), " ",
        h("button", { class: "small danger", "aria-label": "Disable key " + short(r.key_id, 60), onclick: () => disable(r) }, "Disable key")) },
    ], shown.slice(0, 500), { empty: "Nothing runs.", caption: "Running requests" }));
  };
  filter.addEventListener("input", show);
  body.replaceChildren(h("div", { class: "row" }, h("label", {}, "Show only", filter)), count, list);
  await poll(signal, 1000, async () => {
    rows = (await get("/admin/requests")).requests.sort((a, b) => a.started_at.localeCompare(b.started_at));
    // Buttons stay under the pointer and under the keyboard while nothing else has to move.
    if (!list.contains(document.activeElement)) show();
  });
}

async function cut(r) {
  if (!(await confirm("Cut this request?", `The stream of ${short(r.user, 60)} ends now; what it used stays charged as “cancelled”.`, "Cut it"))) return;
  try {
    await call("DELETE", "/admin/requests/" + encodeURIComponent(r.request_id));
    toast("The request was cut.");
  } catch (error) {
    toast(error.status === 404 ? "It had ended already." : error.message, true);
  }
}

async function disable(r) {
  if (!(await confirm(`Disable the key ${short(r.key_id, 60)}?`, "It is refused from now on and all of its streams are cut. Keys → Enable takes it back.", "Disable it"))) return;
  try {
    await call("PATCH", "/admin/keys/" + encodeURIComponent(r.key_id), { body: { enabled: false } });
    toast("The key is disabled.");
  } catch (error) {
    toast(error.message, true);
  }
}
