// The console: it signs in with a key, shows the pages that the key may see, and
// keeps the one that is open up to date.
import { get, setKey, forget, ApiError } from "./api.js";
import { h, toast, short } from "./dom.js";
import { now } from "./page-now.js";
import { live } from "./page-live.js";
import { usage } from "./page-usage.js";
import { keys } from "./page-keys.js";
import { requests } from "./page-requests.js";
import { engines } from "./page-engines.js";
import { trust } from "./page-trust.js";
import { mine } from "./page-mine.js";

const adminPages = { now, live, usage, keys, requests, engines, trust };
const titles = { now: "Now", live: "Live", usage: "Usage", keys: "Keys", requests: "Requests", engines: "Engines", trust: "Trust", mine: "My key" };

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const who = document.getElementById("who");
let pages = {};
let leave = () => {}; // of the open page

async function signIn(secret) {
  setKey(secret.trim());
  let own = null, admin = false;
  try {
    own = await get("/v1/key");
    admin = own.user === "admin";
  } catch (error) {
    if (error.status !== 404) throw error; // the administrators' own listener has no page for keys
  }
  if (!own || admin) {
    try {
      await get("/admin/keys");
      admin = true;
    } catch (error) {
      if (!own || (error.status !== 404 && error.status !== 403)) throw error;
      admin = false; // administrators have a listener of their own
    }
  }
  pages = { ...(admin ? adminPages : {}), ...(own ? { mine } : {}) };
  who.replaceChildren(h("span", {}, own ? short(own.user, 40) + " (" + short(own.id, 40) + ")" : "administrator"), h("button", { class: "small", onclick: signOut }, "Sign out"));
  who.hidden = nav.hidden = false;
  open();
}

function signOut() {
  forget();
  leave();
  leave = () => {};
  pages = {};
  who.hidden = nav.hidden = true;
  history.replaceState(null, "", location.pathname);
  showLogin();
}

function showLogin() {
  document.title = "Tollgate";
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true, id: "key", name: "k" });
  const button = h("button", { class: "main", type: "submit" }, "Sign in");
  const problem = h("p", { class: "bad", role: "alert" });
  main.replaceChildren(h("form", {
    class: "panel login", onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      problem.textContent = "";
      try {
        await signIn(input.value);
      } catch (error) {
        forget();
        problem.textContent = error instanceof ApiError && error.status === 401 ? "No enabled key has this secret." : error.message;
      }
      button.disabled = false;
    },
  },
  h("h2", {}, "Sign in"),
  h("p", {}, "Any API key sees its own use here; an administrator's key sees everything. The key stays in this page's memory and is gone when you close or reload it."),
  h("label", { for: "key" }, "API key"), input, problem, h("p", {}, button)));
  input.focus();
}

function open() {
  const names = Object.keys(pages);
  if (names.length === 0) return showLogin();
  let name = location.hash.replace(/^#\/?/, "").split("?")[0];
  if (!pages[name]) name = names[0];
  nav.replaceChildren(...names.map((n) => h("a", { href: "#/" + n, "aria-current": n === name ? "page" : undefined }, titles[n])));
  document.title = titles[name] + " · Tollgate";
  leave();
  const stop = new AbortController();
  leave = () => stop.abort();
  const heading = h("h2", {}, titles[name]);
  const body = h("div", {}, h("p", { class: "empty" }, "Loading …"));
  main.replaceChildren(heading, body);
  pages[name](body, stop.signal).catch((error) => failed(body, error, stop.signal));
}

function failed(body, error, signal) {
  if (signal.aborted) return;
  if (error.status === 401) {
    toast("The key is not valid any more.", true);
    signOut();
    return;
  }
  body.replaceChildren(h("div", { class: "panel" }, h("p", { class: "bad", role: "alert" }, error.message), h("button", { onclick: open }, "Try again")));
}

addEventListener("hashchange", open);
showLogin();
