"""Sees with Anthropic's SDK how quotas shorten and refuse answers, and an error event.

usage: anthropic_sdk.py BASE_URL http1|http2 STREAMED SHORTENED BROKEN
The last ones are keys. Prints one JSON object per call: what the SDK made of it.
"""
import json
import sys

import anthropic

base, protocol, streamed, shortened, broken = sys.argv[1:]
# Without TLS HTTP/2 is spoken by prior knowledge.
transport = anthropic.DefaultHttpxClient(http1=protocol == "http1", http2=protocol == "http2")


def client(key):
    return anthropic.Anthropic(base_url=base, api_key=key, http_client=transport)


def say(**what):
    print(json.dumps(what), flush=True)


ask = {"model": "tiny", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
with client(streamed).messages.stream(**ask) as stream:
    pieces = sum(1 for _ in stream.text_stream)
    answer = stream.get_final_message()
    say(call="stream", pieces=pieces, bound=stream.response.headers.get("x-quota-max-tokens"),
        tokens=answer.usage.output_tokens, finish=answer.stop_reason)

raw = client(shortened).messages.with_raw_response.create(**ask)
answer = raw.parse()
say(call="whole", bound=raw.headers.get("x-quota-max-tokens"), tokens=answer.usage.output_tokens, finish=answer.stop_reason)


def kind(e):
    return e.body["error"]["type"] if isinstance(e.body, dict) else str(e.body)


try:
    for _ in range(3):  # what was kept for the prompt is left
        client(shortened).messages.create(**ask)
    say(call="spent", error="none")
except anthropic.RateLimitError as e:
    say(call="spent", status=e.status_code, error=kind(e))

pieces = 0
try:
    with client(broken).messages.stream(extra_body={"sim": {"error_after": 5}}, **ask) as stream:
        for _ in stream.text_stream:
            pieces += 1
    say(call="broken", pieces=pieces, error="none")
except anthropic.APIStatusError as e:
    say(call="broken", pieces=pieces, error=kind(e))
