// My key: what any key may know of itself, and a place to try it.
import { get, query, typedKey } from "./api.js";
import { h, card, field, bar, short } from "./dom.js";
import { number, time, duration } from "./format.js";
import { stacked } from "./chart.js";
import { rowsTable } from "./page-requests.js";
import { snippets } from "./snippets.js";

export async function mine(body, signal) {
  const [own, models] = await Promise.all([get("/v1/key"), get("/v1/models").catch((error) => ({ data: [], why: error.message }))]);
  const since = new Date(Date.now() - 29 * 86400e3);
  since.setUTCHours(0, 0, 0, 0);
  const [used, last] = await Promise.all([get("/v1/usage" + query({ since: since.toISOString() })), get("/v1/requests?limit=20")]);
  if (signal.aborted) return;
  const l = own.effective_limits, n = own.now;
  const full = (label, u, limit, note) => h("div", { class: "card" }, h("div", { class: "label" }, label),
    h("div", { class: "value" }, number(Math.max(0, u)) + (limit === null ? "" : " of " + number(limit))), bar(Math.max(0, u), limit, label), note ? h("div", { class: "note" }, note) : null);
  const chart = h("div", { class: "panel" });
  body.replaceChildren(
    h("div", { class: "cards" },
      card("Key", short(own.id, 60), "of " + short(own.user, 60) + (own.expires_at ? ", until " + time(own.expires_at) : "")),
      full("Quota", n.quota_used, l.quota, own.quota_resets_at ? "begins again " + time(own.quota_resets_at) : ""),
      full("Slots", n.concurrent, l.concurrent),
      full("Requests in this minute", n.requests_in_window, l.requests_per_minute),
      full("Tokens in this minute", n.tokens_in_window, l.tokens_per_minute)),
    h("section", {}, h("h3", {}, "Tokens in the last 30 days"), chart),
    playground(models.data.map((m) => m.id), models.why, signal),
    h("section", {}, h("h3", {}, "Last requests"), rowsTable(last.requests, false)),
    h("section", { class: "panel" }, snippets()));
  const times = [];
  for (let t = since / 1e3; t <= Date.now() / 1e3; t += 86400) times.push(t);
  const at = new Map(times.map((t, i) => [new Date(t * 1e3).toISOString().slice(0, 10), i]));
  const series = new Map([["prompt", times.map(() => 0)], ["output", times.map(() => 0)]]);
  for (const g of used.usage) {
    const i = at.get(g.day);
    if (i === undefined) continue;
    series.get("prompt")[i] += g.prompt_tokens;
    series.get("output")[i] += g.completion_tokens;
  }
  chart.append(used.requests ? stacked(times, series, { label: "Tokens a day", width: chart.clientWidth - 30 }) : h("p", { class: "empty" }, "Nothing was used."));
}

// playground sends one chat request and shows the answer as it streams, and what it used.
function playground(models, why, signal) {
  const model = field("Model", { value: models[0] || "" }, models.map((m) => [m, short(m, 60)]));
  const prompt = field("Message", { rows: 3, required: true, value: "" });
  const answer = h("div", { class: "answer", "aria-live": "off" }), used = h("p", { class: "note", role: "status" });
  const send = h("button", { class: "main", type: "submit" }, "Send"), stop = h("button", { type: "button", disabled: true }, "Stop");
  let running = null;
  stop.addEventListener("click", () => running?.abort());
  signal.addEventListener("abort", () => running?.abort());
  const form = h("form", {
    class: "panel", onsubmit: async (event) => {
      event.preventDefault();
      running = new AbortController();
      send.disabled = true;
      stop.disabled = false;
      answer.textContent = "";
      used.textContent = "Waiting for the first token …";
      const start = performance.now();
      try {
        await stream({ model: model.control.value, messages: [{ role: "user", content: prompt.control.value }], stream: true, stream_options: { include_usage: true } }, running.signal, {
          first: () => { used.textContent = "First token after " + duration(performance.now() - start) + "."; },
          text: (t) => answer.append(t),
          usage: (u) => { used.textContent += ` ${number(u.prompt_tokens)} prompt and ${number(u.completion_tokens)} output tokens in ${duration(performance.now() - start)}.`; },
        });
      } catch (error) {
        used.textContent = error.name === "AbortError" ? "Stopped; what had come is counted." : error.message;
      }
      send.disabled = false;
      stop.disabled = true;
      running = null;
    },
  }, h("h3", {}, "Try it"), h("div", { class: "row" }, model.label), prompt.label, h("div", { class: "row" }, send, stop), answer, used);
  return h("section", {}, models.length ? form : h("p", { class: "note" }, why || "No model can be used now."));
}

async function stream(body, signal, on) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST", signal, credentials: "omit", cache: "no-store", headers: { authorization: "Bearer " + typedKey(), "content-type": "application/json" }, body: JSON.stringify(body),
  });
  if (!response.ok) {
    const said = await response.json().catch(() => null);
    throw new Error(said?.error?.message || "The gateway answered " + response.status + ".");
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", first = true;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:") || line.includes("[DONE]")) continue;
      const event = JSON.parse(line.slice(5));
      if (event.error) throw new Error(event.error.message);
      const text = event.choices?.[0]?.delta?.content;
      if (text && first) { on.first(); first = false; }
      if (text) on.text(text);
      if (event.usage) on.usage(event.usage);
    }
  }
}
