#!/usr/bin/env python3
"""The Python side of `npm run bench -- text`: transformers and peft; reads a command a line, answers each with a line of JSON.

    peer_text.py WORKLOAD [--lm DIR --captions FILE --dtype float32|bfloat16]
    time STYLE BATCH N    milliseconds of forward and backward of batch number BATCH, median of N. STYLE:
                          pad-64   each caption padded to 64 tokens
                          longest  padded to the longest of the batch
                          once     the same, equal captions once
    features BATCH        sum of |features|, and of |gradients| of the first adapter's B (float32)

Without --lm: GPT-2 of 512 x 6 layers, 8 heads, LoRA (r 8, alpha 32) on c_attn, seed 0; its weights are written to
--save DIR for the other side. With --lm: that folder's LLaMA, LoRA on q_proj and v_proj.
The feature is the state at the first padding position; the loss is its mean square.
"""
import argparse, json, os, sys, time

os.environ["HF_HUB_OFFLINE"] = "1"
import torch, transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("workload"); parser.add_argument("--lm"); parser.add_argument("--captions"); parser.add_argument("--save")
parser.add_argument("--batch", type=int, default=72); parser.add_argument("--dtype", default="float32")
options = parser.parse_args()
transformers.logging.set_verbosity_error()
torch.manual_seed(0)

if options.lm:
    tokenizer = AutoTokenizer.from_pretrained(options.lm)
    with open(options.captions) as file:
        captions = [line.rstrip("\n") for line in file]
    texts = [tokenizer(each)["input_ids"] for each in captions[: 8 * options.batch]]
    model, pad, targets = LlamaForCausalLM.from_pretrained(options.lm, dtype=torch.float32), 2, None
else:
    work = load_file(options.workload)
    texts = [ids[:length].tolist() for ids, length in zip(work["input_ids"], work["length"])]
    config = GPT2Config(n_embd=512, n_layer=6, n_head=8, vocab_size=420, n_positions=64, bos_token_id=0, eos_token_id=0,
                        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    model, pad, targets = GPT2LMHeadModel(config), 0, ["c_attn"]
    model.save_pretrained(options.save)
model.lm_head = torch.nn.Identity()
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.0, target_modules=targets,
                                         fan_in_fan_out=not options.lm)).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.copy_(torch.linspace(-0.02, 0.02, parameter.numel()).view_as(parameter))
        if "lora_A" in name:
            parameter.copy_(torch.linspace(0.02, -0.02, parameter.numel()).view_as(parameter))
learned = [p for p in model.parameters() if p.requires_grad]
autocast = torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16")


def encode(batch, style):
    inverse = None
    if style == "once":
        known = {}
        inverse = torch.tensor([known.setdefault(tuple(ids), len(known)) for ids in batch])
        batch = list(known)
    width = 64 if style == "pad-64" else max(map(len, batch)) + 1
    ids, mask = torch.full((len(batch), width), pad), torch.zeros(len(batch), width, dtype=torch.long)
    for row, own in enumerate(batch):
        ids[row, : len(own)], mask[row, : len(own)] = torch.tensor(own), 1
    hidden = model(input_ids=ids, attention_mask=mask).logits[torch.arange(len(batch)), mask.sum(1)]
    return hidden if inverse is None else hidden[inverse]


def step(number, style):
    first = number * options.batch % (len(texts) - options.batch + 1)
    batch = texts[first : first + options.batch]
    for parameter in learned:
        parameter.grad = None
    start = time.perf_counter()
    with autocast:
        features = encode(batch, style)
    features.float().square().mean().backward()
    return (time.perf_counter() - start) * 1e3, features


for line in sys.stdin:
    command, *rest = line.split()
    if command == "time":
        style, number, count = rest[0], int(rest[1]), int(rest[2])
        value = sorted(step(number, style)[0] for _ in range(count))[count // 2]
        print(json.dumps({"value": value}), flush=True)
    else:
        _, features = step(int(rest[0]), "longest")
        print(json.dumps({"features": features.float().abs().sum().item(), "gradients": sum(p.grad.abs().sum().item() for p in learned)}), flush=True)
