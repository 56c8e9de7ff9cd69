"""Calls the gateway with the official client, its retries as they come.

usage: ride.py BASE_URL KEY CALLS [stream]
Prints one line per call: "ok", or the status and code of the error.
"""
import sys

import openai

base, key, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = openai.OpenAI(base_url=base, api_key=key)
for _ in range(calls):
    try:
        answer = client.chat.completions.create(
            model="tiny", max_tokens=3, stream=len(sys.argv) > 4,
            messages=[{"role": "user", "content": "hi"}],
        )
        if len(sys.argv) > 4:
            for _ in answer:
                pass
        print("ok")
    except openai.APIStatusError as e:
        print(e.status_code, e.code, type(e).__name__)
