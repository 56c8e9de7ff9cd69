"""Sees with OpenAI's SDK how quotas end and shorten answers.

usage: openai_sdk.py BASE_URL http1|http2 ENDING SHORTENED RESPONSES
The last ones are keys. Prints one JSON object per call: what the SDK made of it.
"""
import json
import sys

import openai

base, protocol, ending, shortened, responses = sys.argv[1:]
# Without TLS HTTP/2 is spoken by prior knowledge.
transport = openai.DefaultHttpxClient(http1=protocol == "http1", http2=protocol == "http2")


def client(key):
    return openai.OpenAI(base_url=base + "/v1", api_key=key, http_client=transport)


def say(**what):
    print(json.dumps(what), flush=True)


ask = {"model": "tiny", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
pieces = 0
try:
    for chunk in client(ending).chat.completions.create(stream=True, **ask):
        pieces += sum(1 for c in chunk.choices if c.delta.content)
    say(call="stream", pieces=pieces, error="none")
except openai.APIError as e:
    say(call="stream", pieces=pieces, error=e.code)

try:
    client(ending).chat.completions.create(**ask)
    say(call="spent", error="none")
except openai.RateLimitError as e:
    say(call="spent", status=e.status_code, error=e.code)

raw = client(shortened).chat.completions.with_raw_response.create(**ask)
answer = raw.parse()
say(call="whole", bound=raw.headers.get("x-quota-max-tokens"), tokens=answer.usage.completion_tokens, finish=answer.choices[0].finish_reason)

raw = client(responses).responses.with_raw_response.create(model="tiny", input="hi", max_output_tokens=1000, stream=True)
for event in raw.parse():
    last = event
say(call="responses", bound=raw.headers.get("x-quota-max-tokens"), tokens=last.response.usage.output_tokens,
    finish=last.response.status + " " + last.response.incomplete_details.reason)
