package vllmsim

// Help says how the simulator is used, for the --help of a command.
const Help = `A simulated vLLM 0.32. It answers what a real one answers, with plain English
filler instead of a model's words. The same request always gets the same text.

Tokens: a run of up to 12 letters and digits with one space before it, or any
other single character. A chat adds 5 tokens a message and 3 for the answer. An
answer has max_tokens tokens (finish_reason "length"), or 32 ("stop") where none
are named or more than 16384.

Routes: /v1/chat/completions /v1/completions /v1/responses /v1/messages
  /v1/messages/count_tokens /v1/embeddings /v1/score /v1/rerank /v2/rerank
  /pooling /classify /tokenize /detokenize /v1/models /v1/load_lora_adapter /v1/unload_lora_adapter /health
  /ping /version /load /metrics

A request may script its own answer with a top-level object "sim":
  tokens N               length of each choice, at least 1; max_tokens still cuts it
  text "…"               this text instead of the sentences
  first_delay_ms, delay_ms   before the first token, before each further one
  pause_after K          after K content chunks wait for /sim/release
  cut_after K, cut "fin"|"rst"   close the connection after K content chunks
  error_after K          error event and [DONE] after K; not streamed: 500
  engine_abort_after K   finish_reason "abort", usage and [DONE] after K
  error_status N, error_body "…"   answer with that status at once
  hang true              never answer
  no_usage, no_done      leave all usage out; leave the last event out
  usage_override {…}, running_override {…}   instead of the final, every running usage
  cached_tokens N        report as the cached part of the prompt
  empty_every K          every K-th token has no text
  tool_call true         tool_choice "auto" calls the first tool
  run_ahead N            tokens per choice generated beyond what was written
                         when the client leaves
  chunk_bytes N, join K  write in pieces of N bytes; K events in one write
  crlf, comments         \r\n line ends; a keep-alive comment before every event
  big_event N            N more bytes of text in the first content chunk
  raw "base64", raw_status N, raw_content_type "…"   send these bytes instead;
                         with cut_after 0 the connection is cut after them
  group "name"           count it under that name in /sim/stats too
K counts chunks that carry text or a part of a tool call, over all choices; not
streamed, it counts tokens of a choice. The gateway passes unknown fields on.

Control, on the same address, for tests (no key needed):
  GET  /sim/truth        what was received, generated and written, per request
         ?request_id=X   one request, by its x-request-id
         &wait_ms=N      and only after its end
  GET  /sim/stats        running now, the most at once, totals
  POST /sim/release      go on with paused answers (?request_id=X: with one)
  POST /sim/script       {"defaults": {a "sim" object for all requests},
                          "not_ready": true, "ready_in_ms": N, "draining": true,
                          "crash": "engine"|"main"}
  POST /sim/exit?code=N  cut everything and exit with N
  POST /sim/reset        cut what runs; forget scripts, counters, adapters, requests
`
