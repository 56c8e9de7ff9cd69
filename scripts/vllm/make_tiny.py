#!/usr/bin/env python3
"""Builds a tiny Llama with tokenizer, chat template and LoRA adapters, from fixed seeds.

usage: make_tiny.py FOLDER

FOLDER/model: 0.6 million random parameters, a byte-level BPE tokenizer of 1,024
entries trained on made-up words, a ChatML template. It talks gibberish, the same
every time at temperature 0, and next to never ends by itself, so an answer has
as many tokens as max_tokens says. Some tokens are part of a UTF-8 character, as
with real models. FOLDER/lora/a and b: adapters of rank 8 that change what it
says; big: one of rank 32, over the default limit.
"""

import json
import pathlib
import random
import sys

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, LAYERS, HEADS, FEED, VOCABULARY, CONTEXT = 128, 2, 2, 256, 1024, 32768
HEAD = HIDDEN // HEADS  # 64: the least that attention on CPU takes
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def tokenizer(folder):
    rng = random.Random(7)
    syllables = [c + v for c in "bdklmnrst" for v in "aeiou"]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(700)]
    words += "the of and to in is that it was for on are as with from user assistant system token count ledger gateway".split()
    lines = [" ".join(rng.choice(words) for _ in range(rng.randint(4, 14))) + rng.choice(".?!,") for _ in range(4000)]
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    t.train_from_iterator(lines, trainer)
    t.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "bos_token": None, "pad_token": "<|endoftext|>",
        "model_max_length": CONTEXT, "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False,
    })
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return t


def model(folder, t):
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FEED,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD,
        "vocab_size": t.get_vocab_size(), "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "bos_token_id": None,
        "eos_token_id": t.token_to_id("<|im_end|>"), "pad_token_id": t.token_to_id("<|endoftext|>"), "torch_dtype": "float32",
    })
    rng = np.random.default_rng(11)

    def random_matrix(rows, columns, deviation):
        return (rng.standard_normal((rows, columns)) * deviation).astype(np.float32)

    ones, size = np.ones(HIDDEN, np.float32), t.get_vocab_size()
    weights = {"model.embed_tokens.weight": random_matrix(size, HIDDEN, 1.0), "model.norm.weight": ones, "lm_head.weight": random_matrix(size, HIDDEN, 0.3)}
    weights["lm_head.weight"][: len(SPECIAL)] *= 0.01  # nearly never the likeliest token: it does not end by itself
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        weights |= {at + "input_layernorm.weight": ones, at + "post_attention_layernorm.weight": ones}
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
            weights[f"{at}{name}.weight"] = random_matrix(HEADS * HEAD, HIDDEN, 0.1)
        for name, rows, columns in (("gate_proj", FEED, HIDDEN), ("up_proj", FEED, HIDDEN), ("down_proj", HIDDEN, FEED)):
            weights[f"{at}mlp.{name}.weight"] = random_matrix(rows, columns, 0.1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def adapter(folder, rank, seed):
    folder.mkdir(parents=True)
    write_json(folder / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "tiny", "inference_mode": True, "fan_in_fan_out": False,
    })
    rng = np.random.default_rng(seed)
    weights = {}
    for i in range(LAYERS):
        for module in ("q_proj", "v_proj"):
            at = f"base_model.model.model.layers.{i}.self_attn.{module}."
            weights[at + "lora_A.weight"] = (rng.standard_normal((rank, HIDDEN)) * 0.3).astype(np.float32)
            weights[at + "lora_B.weight"] = (rng.standard_normal((HEADS * HEAD, rank)) * 0.3).astype(np.float32)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def main():
    out = pathlib.Path(sys.argv[1])
    (out / "model").mkdir(parents=True)
    model(out / "model", tokenizer(out / "model"))
    for name, rank, seed in (("a", 8, 1), ("b", 8, 2), ("big", 32, 3)):
        adapter(out / "lora" / name, rank, seed)


if __name__ == "__main__":
    main()
