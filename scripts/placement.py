#!/usr/bin/env python3
"""Compares ways of choosing between two real vLLM engines: what they compute, and how
soon the first token comes.

With --load conversations 40 conversations of 6 turns under one system prompt run at
once; each sends its next question when it has the answer. With --load repetition
`vllm bench serve --dataset-name prefix_repetition` sends 160 prompts, of which four
begin alike. For every way the engines' prefix caches are emptied first, and their own
counters say how many prompt tokens they computed: vllm:prefix_cache_queries_total
less vllm:prefix_cache_hits_total.

  least_request   a plain Envoy with its LEAST_REQUEST, nothing else
  least_loaded    tollgate with balance.policy least_loaded
  prefix          tollgate with balance.policy prefix
  vllm-router     PyPI's vllm-router, cache_aware, where --peers names a folder with it
  smg             PyPI's smg, cache_aware, likewise

`make build envoy vllm` first, then `python3 scripts/placement.py`. --engines names two
that run already (with VLLM_SERVER_DEV_MODE=1, --enable-prompt-tokens-details and the
served name tiny). Everything listens on loopback and ends with the script.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "scripts" / "vllm")]
KEY = "sk-placement-0123456789abcdef"
WAYS = ("least_request", "least_loaded", "prefix", "vllm-router", "smg")

PLAIN = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          route_config: {{ virtual_hosts: [{{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: engines, timeout: 0s }} }}] }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: engines
    type: STATIC
    lb_policy: LEAST_REQUEST
    load_assignment: {{ cluster_name: engines, endpoints: [{{ lb_endpoints: [{endpoints}] }}] }}
"""


def say(text):
    print(f"placement: {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def process(command, log, **options):
    """A program and all that it starts, ended at the end."""
    with open(log, "wb") as out:
        p = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)
    try:
        yield p
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)
        p.wait()


def until(what, check, seconds, log):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if check():
                return
        time.sleep(0.2)
    sys.exit(f"placement: {what} did not come in {seconds} s, see {log}")


def answers(url):
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Bearer " + KEY}), timeout=5) as r:
        return r.status == 200


def counters(engine):
    """Prompt tokens that an engine has looked for in its cache and not found."""
    total = 0.0
    with urllib.request.urlopen(f"http://{engine}/metrics", timeout=30) as r:
        for line in r.read().decode().splitlines():
            name = line.partition("{")[0]
            if name == "vllm:prefix_cache_queries_total":
                total += float(line.rsplit(" ", 1)[1])
            elif name == "vllm:prefix_cache_hits_total":
                total -= float(line.rsplit(" ", 1)[1])
    return total


def reset(engine):
    urllib.request.urlopen(urllib.request.Request(f"http://{engine}/reset_prefix_cache", method="POST"), timeout=30).read()


def words(seed, n):
    r = random.Random(seed)
    return " ".join("".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randint(2, 8))) for _ in range(n))


def turn(port, messages, tokens):
    """One streamed answer: its text and the seconds to its first piece."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = json.dumps({"model": "tiny", "messages": messages, "max_tokens": tokens, "ignore_eos": True, "stream": True, "temperature": 0})
    began, first, text = time.monotonic(), None, ""
    c.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", "Authorization": "Bearer " + KEY})
    r = c.getresponse()
    if r.status != 200:
        raise RuntimeError(f"{r.status}: {r.read()[:300]}")
    for line in r:
        if not line.startswith(b"data: {"):
            continue
        choices = json.loads(line[6:]).get("choices")
        piece = choices and choices[0]["delta"].get("content")
        if piece:
            first = first or time.monotonic() - began
            text += piece
    c.close()
    return text, first if first is not None else time.monotonic() - began


def conversations(port, o):
    """All conversations at once; the times to first tokens, in seconds: p50, p95."""
    times, failed, lock = [], [], threading.Lock()
    system = {"role": "system", "content": words("system", o.system)}

    def talk(n):
        messages = [system]
        try:
            for t in range(o.turns):
                messages.append({"role": "user", "content": words(f"{n}-{t}", o.question)})
                text, first = turn(port, messages, o.answer)
                messages.append({"role": "assistant", "content": text})
                with lock:
                    times.append(first)
        except Exception as err:  # a thread has nobody above it
            failed.append(err)

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(o.conversations)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        sys.exit(f"placement: {len(failed)} conversations failed: {failed[0]}")
    return statistics.median(times), statistics.quantiles(times, n=20)[18]


def repetition(port, folder):
    """vLLM's own benchmark of prompts that begin alike; the times to first tokens, in
    seconds: p50, p95."""
    import install

    home = install.home()
    command = [str(home / "env/bin/vllm"), "bench", "serve", "--base-url", f"http://127.0.0.1:{port}", "--endpoint", "/v1/completions", "--model", "tiny",
               "--tokenizer", str(home / "models/tiny/model"), "--dataset-name", "prefix_repetition", "--num-prompts", "160", "--max-concurrency", "8", "--seed", "1",
               "--prefix-repetition-num-prefixes", "40", "--prefix-repetition-prefix-len", "1024", "--prefix-repetition-suffix-len", "64",
               "--prefix-repetition-output-len", "16", "--ignore-eos", "--temperature", "0", "--ready-check-timeout-sec", "0", "--disable-tqdm",
               "--metric-percentiles", "50,95", "--save-result", "--result-dir", str(folder), "--result-filename", "bench.json"]
    env = dict(install.ENGINE_ENV, HOME=os.environ["HOME"], PATH=f"{home / 'env/bin'}:{os.environ['PATH']}", OPENAI_API_KEY=KEY)
    with open(folder / "bench.log", "wb") as log:
        code = subprocess.run(command, stdout=log, stderr=log, env=env).returncode
    told = json.loads((folder / "bench.json").read_text()) if code == 0 else {}
    if told.get("completed") != 160:
        sys.exit(f"placement: vllm bench serve ended with {code}, {told.get('completed')} of 160 answers: {(folder / 'bench.log').read_text()[-2000:]}")
    return told["p50_ttft_ms"] / 1000, told["p95_ttft_ms"] / 1000


def envoy_binary():
    import fetch_envoy

    return os.environ.get("ENVOY_BIN") or subprocess.run([sys.executable, fetch_envoy.__file__], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def plain_envoy(engines, folder):
    port = free_port()
    listed = ", ".join("{ endpoint: { address: { socket_address: { address: %s, port_value: %s } } } }" % tuple(e.rsplit(":", 1)) for e in engines)
    config = folder / "plain.yaml"
    config.write_text(PLAIN.format(port=port, endpoints=listed))
    with process([envoy_binary(), "-c", str(config), "--concurrency", "1", "--base-id", str(free_port())], folder / "plain.log"):
        yield port


@contextlib.contextmanager
def tollgate(policy, engines, folder):
    port, metrics = free_port(), free_port()
    home = folder / policy
    home.mkdir(exist_ok=True)
    (home / "keys.json").write_text(json.dumps([{"key": KEY, "id": "placement", "user": "placement"}]))
    (home / "config.yaml").write_text(json.dumps({
        "listen": f"127.0.0.1:{port}", "metrics_listen": f"127.0.0.1:{metrics}", "state_dir": str(home / "state"), "log": {"dir": str(home / "logs")},
        "auth": {"api_keys_file": str(home / "keys.json")}, "vllm": {"endpoints": engines}, "balance": {"policy": policy}, "envoy": {"concurrency": 1},
    }))
    with process([str(ROOT / "bin" / "launcher"), "--config", str(home / "config.yaml"), "up"], folder / f"{policy}.log", cwd=home, env=dict(os.environ, ENVOY_BIN=envoy_binary())):
        yield port


@contextlib.contextmanager
def peer(name, engines, o, folder):
    port = free_port()
    command = [str(pathlib.Path(o.peers) / "bin" / name)] + (["launch"] if name == "smg" else [])
    command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port()), "--policy", "cache_aware", "--worker-urls"]
    with process(command + ["http://" + e for e in engines], folder / f"{name}.log"):
        yield port


def way(name, engines, o, folder):
    """One row of the table."""
    made = {"least_request": lambda: plain_envoy(engines, folder), "vllm-router": lambda: peer(name, engines, o, folder), "smg": lambda: peer(name, engines, o, folder)}
    with made.get(name, lambda: tollgate(name, engines, folder))() as port:
        until(name, lambda: answers(f"http://127.0.0.1:{port}/v1/models"), 60, folder / f"{name}.log")
        time.sleep(2)  # peers look for their engines' models first
        for e in engines:
            reset(e)
        before = [counters(e) for e in engines]
        began = time.monotonic()
        p50, p95 = conversations(port, o) if o.load == "conversations" else repetition(port, folder)
        took = time.monotonic() - began
        each = [int(counters(e) - b) for e, b in zip(engines, before)]
    return {"way": name, "prefilled": sum(each), "each": each, "p50": p50, "p95": p95, "seconds": took}


@contextlib.contextmanager
def vllms(folder):
    """Two engines of the pinned vLLM."""
    import install

    home = install.home()
    if not (home / "installed").exists():
        sys.exit("placement: there is no vLLM yet, run: make vllm")
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        for p in ports:
            command = [str(home / "env/bin/vllm"), "serve", str(home / "models/tiny/model"), "--served-model-name", "tiny", "--enforce-eager", "--max-num-seqs", "16",
                       "--seed", "1", "--dtype", "float32", "--max-model-len", "4096", "--block-size", "32", "--host", "127.0.0.1", "--port", str(p), "--enable-prompt-tokens-details"]
            env = dict(install.ENGINE_ENV, HOME=os.environ["HOME"], PATH=f"{home / 'env/bin'}:{os.environ['PATH']}", VLLM_SERVER_DEV_MODE="1")
            stack.enter_context(process(command, folder / f"vllm-{p}.log", env=env))
        for p in ports:
            until("vLLM", lambda p=p: answers(f"http://127.0.0.1:{p}/health"), 600, folder / f"vllm-{p}.log")
        yield [f"127.0.0.1:{p}" for p in ports]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--engines", nargs=2, metavar="HOST:PORT", help="two that run already")
    a.add_argument("--peers", metavar="DIR", help="a virtual environment with vllm-router and smg")
    a.add_argument("--load", choices=("conversations", "repetition"), default="conversations", help="what is asked (conversations)")
    a.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    a.add_argument("--rounds", type=int, default=1, help="all ways, so many times (1)")
    for name, n, what in (("conversations", 40, "at once"), ("turns", 6, "of each"), ("system", 100, "words that all share"),
                          ("question", 70, "words of each"), ("answer", 16, "tokens of each")):
        a.add_argument("--" + name, type=int, default=n, help=f"{what} ({n})")
    o = a.parse_args()
    ways = [w for w in o.ways if o.peers or w not in ("vllm-router", "smg")]
    with tempfile.TemporaryDirectory(prefix="placement-") as name:
        folder = pathlib.Path(name)
        with contextlib.nullcontext(o.engines) if o.engines else vllms(folder) as engines:
            print("| way | tokens prefilled | of least_request | first token p50 | p95 |\n|---|---|---|---|---|", flush=True)
            base = None
            for w in ways * o.rounds:
                r = way(w, engines, o, folder)
                base = r["prefilled"] if w == "least_request" else base
                share = f"{r['prefilled'] / base:.2f}" if base else ""
                print(f"| {w} | {r['prefilled']} | {share} | {1000 * r['p50']:.0f} ms | {1000 * r['p95']:.0f} ms |", flush=True)
                say(f"{w}: by engine {r['each']}, {r['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
