// The little that the pages need of a framework. Text from the gateway becomes text
// nodes and nothing else, so that no name can be markup.

// h makes an element: h("td", {class: "num", onclick: f}, "text", child, …).
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled") element[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false).map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
  return element;
}

// table makes a table that scrolls by itself. columns: {name, cell(row), num, wrap}.
export function table(columns, rows, { empty = "Nothing here.", foot, caption } = {}) {
  if (rows.length === 0) return h("div", { class: "scroll" }, h("p", { class: "empty" }, empty));
  const kind = (c) => [c.num && "num", c.wrap && "wrap", c.name_ && "name"].filter(Boolean).join(" ") || undefined;
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || "Table" },
    h("table", {},
      h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.num ? "num" : undefined }, c.name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((c) => {
        const cell = c.cell(row);
        return h("td", { class: kind(c), title: c.name_ && typeof cell === "string" ? short(cell, 300) : undefined }, typeof cell === "string" ? short(cell, 400) : cell);
      })))),
      foot ? h("tfoot", {}, h("tr", {}, foot.map((f, i) => h("td", { class: columns[i].num ? "num" : undefined }, f)))) : null));
}

// short cuts a text that nobody would read to its end.
export function short(text, most) {
  const letters = Array.from(String(text ?? ""));
  return letters.length > most ? letters.slice(0, most).join("") + "…" : letters.join("");
}

export function card(label, value, note, kind) {
  return h("div", { class: "card" }, h("div", { class: "label" }, label), h("div", { class: "value " + (kind || "") }, value), note ? h("div", { class: "note" }, note) : null);
}

export function toast(text, error) {
  const box = h("div", { class: "toast" + (error ? " error" : "") }, short(text, 600));
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), error ? 9000 : 4000);
}

// dialog shows content and resolves with what the pressed button gives; null when it
// was left. buttons: {text, class, value()}; value may throw, then it stays open.
export function dialog(title, content, buttons) {
  return new Promise((resolve) => {
    const id = "dialog-title";
    const box = h("dialog", { "aria-labelledby": id });
    const done = (value) => { box.close(); box.remove(); resolve(value); };
    box.append(h("h3", { id }, title), content, h("div", { class: "row" }, buttons.map((b) => h("button", {
      type: "button", class: b.class, onclick: async (event) => {
        event.target.disabled = true;
        try { done(b.value ? await b.value() : null); } catch (error) { toast(error.message, true); event.target.disabled = false; }
      },
    }, b.text))));
    box.addEventListener("cancel", (event) => { event.preventDefault(); done(null); });
    document.body.append(box);
    box.showModal();
  });
}

export const confirm = (title, text, verb) => dialog(title, h("p", {}, text), [
  { text: "Keep it", value: () => false }, { text: verb, class: "danger", value: () => true },
]);

export function field(label, attributes, options) {
  const control = options
    ? h("select", attributes, options.map(([value, text]) => h("option", { value, selected: value === attributes.value }, text)))
    : h(attributes.rows ? "textarea" : "input", attributes);
  return { label: h("label", {}, label, control), control };
}

// bar shows how full something is; nothing where there is no limit.
export function bar(used, limit, label) {
  if (limit === null || limit === undefined) return h("span", { class: "note" }, "no limit");
  const share = limit > 0 ? Math.min(1, used / limit) : 1;
  const fill = h("span", {});
  fill.style.width = (share * 100).toFixed(1) + "%";
  return h("div", { class: "bar" + (share >= 0.95 ? " full" : ""), role: "img", "aria-label": `${label}: ${Math.round(share * 100)} percent used` }, fill);
}
