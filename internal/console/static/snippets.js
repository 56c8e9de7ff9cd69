// Ready snippets for a new key. The key itself is not in them: it belongs in the
// environment, not in a shell's history.
import { h } from "./dom.js";

export function snippets() {
  const base = location.origin;
  return h("div", {}, h("h3", {}, "How to use it"),
    h("pre", { tabindex: "0", role: "region", "aria-label": "Examples" }, [
      "read -rs TOLLGATE_KEY && export TOLLGATE_KEY   # paste the key, then Enter",
      "",
      `curl ${base}/v1/models -H "Authorization: Bearer $TOLLGATE_KEY"`,
      "",
      "# openai-python, and what reads OpenAI's variables",
      `export OPENAI_BASE_URL=${base}/v1 OPENAI_API_KEY=$TOLLGATE_KEY`,
      "",
      "# Claude Code",
      `export ANTHROPIC_BASE_URL=${base} ANTHROPIC_AUTH_TOKEN=$TOLLGATE_KEY`,
    ].join("\n")));
}
