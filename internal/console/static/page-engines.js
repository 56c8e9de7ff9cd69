// Engines: what serves, the processes of each host, adapters and logs.
import { get, call, query } from "./api.js";
import { h, table, confirm, toast, field, short } from "./dom.js";
import { ago, number, bytes } from "./format.js";
import { poll } from "./poll.js";

export async function engines(body, signal) {
  const list = h("section", {}), processes = h("section", {}), logs = h("section", {});
  body.replaceChildren(list, adapters(), processes, logs);
  await logPanel(logs);
  await poll(signal, 3000, async () => {
    const [known, children] = await Promise.all([get("/admin/engines"), get("/admin/children")]);
    if (signal.aborted || body.contains(document.activeElement) && document.activeElement.tagName === "BUTTON" && !logs.contains(document.activeElement)) return;
    list.replaceChildren(h("h3", {}, "Engines"), table([
      { name: "Address", name_: true, cell: (e) => e.address },
      { name: "State", cell: (e) => h("span", { class: e.state === "ready" ? "good" : e.state === "draining" ? "warn" : "bad" }, e.state.replaceAll("_", " ")) },
      { name: "Models", wrap: true, cell: (e) => (e.models || []).slice(0, 20).map((m) => short(m, 80)).join(", ") || "–" },
      { name: "Weight", num: true, cell: (e) => (e.weight === undefined ? "–" : String(e.weight)) },
      { name: "Running", num: true, cell: (e) => number(e.running) },
      { name: "Waiting", num: true, cell: (e) => number(e.waiting) },
      { name: "Note", wrap: true, cell: (e) => e.error || "" },
    ], known.engines, { empty: "No engine is known.", caption: "Engines" }));
    processes.replaceChildren(h("h3", {}, "Processes"), ...children.hosts.map((host) => (host.ok ? childTable(host) : h("p", { class: "warn" }, `${short(host.host, 60)}: ${host.message}`))));
  });
}

const childTable = (host) => table([
  { name: "Host", cell: () => host.host },
  { name: "Process", cell: (c) => c.name },
  { name: "State", cell: (c) => h("span", { class: c.state === "ready" ? "good" : "warn" }, c.state) },
  { name: "Since", cell: (c) => ago(c.since) },
  { name: "Restarts", num: true, cell: (c) => String(c.restarts) },
  { name: "Last exit", wrap: true, cell: (c) => (c.last_exit ? (c.last_exit.reason || c.last_exit.signal || "code " + c.last_exit.code) + ", " + ago(c.last_exit.at) : "–") },
  { name: "", cell: (c) => h("button", { class: "small danger", "aria-label": "Restart " + c.name, onclick: () => restart(host.host, c.name) }, "Restart") },
], host.children, { empty: "It runs nothing.", caption: "Processes of " + host.host });

async function restart(host, child) {
  const cost = { envoy: "Every live stream is cut.", vllm: "Every request at this engine fails, and the model is loaded again.", tollgate: "Requests that arrive meanwhile get a 503." }[child] || "";
  if (!(await confirm(`Restart ${child}?`, cost, "Restart it"))) return;
  await act(() => call("POST", `/admin/children/${encodeURIComponent(child)}/restart` + query({ host })), child + " is being restarted.");
}

async function act(what, done) {
  try {
    const answer = await what();
    toast(done || "Done.");
    return answer;
  } catch (error) {
    toast(error.message, true);
    return null;
  }
}

function adapters() {
  const name = field("Adapter", { spellcheck: "false", required: true }), path = field("Folder under vllm.lora.dir", { spellcheck: "false" });
  const send = (load) => act(() => call("POST", load ? "/admin/load-lora-adapter" : "/admin/unload-lora-adapter", {
    body: load ? { lora_name: name.control.value, lora_path: path.control.value || name.control.value } : { lora_name: name.control.value },
  }), load ? "The adapter is loaded." : "The adapter is unloaded.");
  return h("section", {}, h("h3", {}, "LoRA adapters"), h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); send(true); } },
    name.label, path.label, h("button", { type: "submit" }, "Load"), h("button", { type: "button", onclick: () => { if (name.control.reportValidity()) send(false); } }, "Unload")));
}

async function logPanel(section) {
  const stats = await get("/admin/log-stats").catch(() => ({ logs: {} }));
  const names = Object.keys(stats.logs).sort();
  if (!names.length) return section.replaceChildren();
  const which = field("Log", { value: names.includes("vllm.log") ? "vllm.log" : names[0] }, names.map((n) => [n, `${n} (${bytes(stats.logs[n].total_bytes)})`]));
  const text = h("pre", { tabindex: "0", role: "region", "aria-label": "Last lines" });
  const load = async () => {
    try {
      text.textContent = (await get("/admin/logs/" + encodeURIComponent(which.control.value) + "?lines=200")).lines.join("\n") || "The log is empty.";
      text.scrollTop = text.scrollHeight;
    } catch (error) {
      text.textContent = error.message;
    }
  };
  which.control.addEventListener("change", load);
  section.replaceChildren(h("h3", {}, "Logs"), h("div", { class: "row" }, which.label, h("button", { type: "button", onclick: load }, "Read again")), text);
  await load();
}
