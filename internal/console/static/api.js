// The key lives in this variable: in no storage, cookie or address.
let key = "";

export const setKey = (secret) => { key = secret; };
export const forget = () => { key = ""; };
// secretFor lets a snippet or the playground use the key that was typed.
export const typedKey = () => key;

export class ApiError extends Error {
  constructor(status, body, fallback) {
    const said = body && body.error ? body.error : {};
    super(said.message || fallback);
    this.status = status;
    this.code = said.code;
  }
}

// call asks the gateway; the answer is JSON, or text where text is wanted.
export async function call(method, path, { body, text, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method, signal, cache: "no-store", credentials: "omit", redirect: "error",
      headers: { authorization: "Bearer " + key, ...(body ? { "content-type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, null, "The gateway does not answer. Is it running, and is this page's address still its own?");
  }
  if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => null), "The gateway answered " + response.status + ".");
  return text ? response.text() : response.json();
}

export const get = (path, options) => call("GET", path, options);
export const query = (parameters) => {
  const q = new URLSearchParams(Object.entries(parameters).filter(([, v]) => v !== "" && v !== undefined && v !== null));
  return q.size ? "?" + q : "";
};

// metrics reads Prometheus text: name → [{labels, value}].
export async function metrics() {
  const families = new Map();
  for (const line of (await get("/metrics", { text: true })).split("\n")) {
    if (!line || line[0] === "#") continue;
    const m = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!m) continue;
    const labels = {};
    for (const l of (m[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[l[1]] = l[2].replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    if (!families.has(m[1])) families.set(m[1], []);
    families.get(m[1]).push({ labels, value: Number(m[3]) });
  }
  return families;
}

export const sum = (families, name, want = {}) => (families.get(name) || [])
  .filter((s) => Object.entries(want).every(([k, v]) => s.labels[k] === v)).reduce((n, s) => n + s.value, 0);

// quantile estimates a quantile of a histogram from its buckets; null without any.
export function quantile(families, name, q) {
  const buckets = new Map();
  for (const s of families.get(name + "_bucket") || []) {
    const le = s.labels.le === "+Inf" ? Infinity : Number(s.labels.le);
    buckets.set(le, (buckets.get(le) || 0) + s.value);
  }
  const edges = [...buckets.keys()].sort((a, b) => a - b);
  const total = buckets.get(Infinity) || 0;
  if (!total) return null;
  let below = 0, from = 0;
  for (const le of edges) {
    const n = buckets.get(le);
    if (n >= q * total) return le === Infinity ? from : from + (le - from) * ((q * total - below) / Math.max(1, n - below));
    below = n;
    from = le;
  }
  return from;
}
