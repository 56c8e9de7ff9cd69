"""Streams an answer that a quota ends, with the official client.

usage: quota.py BASE_URL KEY
Prints how many pieces of text came, and the code of the error that ended them.
"""
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
pieces = 0
try:
    for chunk in client.chat.completions.create(
        model="tiny", max_tokens=1000, stream=True, messages=[{"role": "user", "content": "hi"}],
    ):
        pieces += sum(1 for c in chunk.choices if c.delta.content)
    print(pieces, "no error")
except openai.APIError as e:
    print(pieces, e.code)
