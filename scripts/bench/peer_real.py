#!/usr/bin/env python3
"""The Python side of `npm run bench -- real`: CLEFT's training step on real chest X-rays with a real language model.

    peer_real.py --images DIR --table CSV.gz --lm DIR --style official|tuned|dedup [--dtype fp32|bf16]

Reads a command a line, answers each with a line of JSON: "step" takes a step and gives its time (ms) and loss, "peak" the
largest resident memory (MiB).
style official   what the published code does each step: eager attention with the attentions returned, every token id read
                 back, captions padded to 64, anomaly detection on, checkpointing (not re-entrant) in the language model
style tuned      what a careful Python user would write: SDPA, captions padded to the longest of the batch, fused AdamW
style dedup      tuned, and equal captions of a batch are encoded once

Image encoder: DINOv2 with 4 registers, 192 x 12 layers, 3 heads, patch 14, 224 x 224, from scratch; feature: the mean of all tokens before the last norm.
Text encoder: the language model, frozen, with LoRA (r 8, alpha 32, dropout 0.1 on q_proj and v_proj); feature: the first padding position.
Equal captions share the target. Split: by patient (NIH) or by file (COVID-19); fold = first byte of sha256(group) mod 5, and that fold is the test set.
"""
import argparse, csv, glob, gzip, hashlib, json, os, re, resource, sys, time
import numpy as np
import torch, torch.nn.functional as F
import transformers
from PIL import Image
from transformers import AutoTokenizer, LlamaForCausalLM, Dinov2WithRegistersConfig, Dinov2WithRegistersModel
from peft import LoraConfig, get_peft_model

ap = argparse.ArgumentParser()
ap.add_argument("--images", required=True); ap.add_argument("--table", required=True); ap.add_argument("--lm", required=True)
ap.add_argument("--style", default="tuned", choices=["official", "tuned", "dedup"]); ap.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
ap.add_argument("--batch", type=int, default=32)
ap.add_argument("--fold", type=int, default=0); ap.add_argument("--lr", type=float, default=5e-4); ap.add_argument("--seed", type=int, default=0)
a = ap.parse_args()
transformers.logging.set_verbosity_error()
torch.manual_seed(a.seed)
rng = np.random.default_rng(a.seed)
official = a.style == "official"
BASE = "this is a chest x ray of a patient with "
CLASSES = {"Covid-19": "covid 19", "No_findings": "no finding", "Pneumonia": "pneumonia"}
with gzip.open(a.table, "rt") as f:
    findings = {r["Image Index"]: r["Finding Labels"] for r in csv.DictReader(f)}

rows = []
for k, name in enumerate(CLASSES):
    for path in sorted(glob.glob(os.path.join(a.images, name, "*"))):
        file = os.path.basename(path)
        nih = re.match(r"(\d{8})_\d{3}\.png$", file)
        group = nih.group(1) if nih else file
        words = " ".join(w.replace("_", " ").lower() for w in findings[file].split("|")) if nih else CLASSES[name]
        rows.append((path, k, BASE + words, hashlib.sha256(group.encode()).digest()[0] % 5))


def load(path):
    im = Image.open(path).convert("L")
    s = 256 / max(im.size)
    im = im.resize((max(1, round(im.width * s)), max(1, round(im.height * s))), Image.BOX)
    out = np.zeros((256, 256), np.uint8)
    t, l = (256 - im.height) // 2, (256 - im.width) // 2
    out[t:t + im.height, l:l + im.width] = np.asarray(im)
    return out


pixels = torch.from_numpy(np.stack([load(r[0]) for r in rows]))
label = torch.tensor([r[1] for r in rows]); fold = np.array([r[3] for r in rows])
train, test = np.where(fold != a.fold)[0], np.where(fold == a.fold)[0]
tok = AutoTokenizer.from_pretrained(a.lm)
captions = sorted({r[2] for r in rows} | {BASE + w for w in CLASSES.values()})
ids_of = [tok(c)["input_ids"] for c in captions]
cap = torch.tensor([captions.index(r[2]) for r in rows])
PAD = 2

vit = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, patch_size=14, image_size=224,
                               num_register_tokens=4, attn_implementation="eager" if official else "sdpa"))
lm = LlamaForCausalLM.from_pretrained(a.lm, dtype=torch.float32, attn_implementation="eager" if official else "sdpa")
lm.lm_head = torch.nn.Identity()
if official:
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
lm = get_peft_model(lm, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.1))
image_proj, text_proj = torch.nn.Linear(192, 512), torch.nn.Linear(lm.config.hidden_size, 512)
log_scale = torch.nn.Parameter(torch.tensor(2.6593))
trainable = [p for m in (vit, lm, image_proj, text_proj) for p in m.parameters() if p.requires_grad]
opt = torch.optim.AdamW([{"params": [p for p in trainable if p.ndim > 1], "weight_decay": 0.05}, {"params": [p for p in trainable if p.ndim < 2] + [log_scale], "weight_decay": 0.0}],
                        lr=a.lr, fused=not official)
if official:
    torch.autograd.set_detect_anomaly(True)
autocast = torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16")


def images(index, augment):
    x = pixels[index].float().div_(255).sub_(0.5).div_(0.5)
    if augment:
        out = torch.empty(len(x), 224, 224)
        for n in range(len(x)):
            t, l = rng.integers(0, 33, 2)
            v = x[n, t:t + 224, l:l + 224] * float(rng.uniform(0.8, 1.2)) + float(rng.uniform(-0.2, 0.2))
            out[n] = v.flip(-1) if rng.random() < 0.5 else v
        x = out
    else:
        x = x[:, 16:240, 16:240]
    return x[:, None].expand(-1, 3, -1, -1)


def image_features(x):
    return F.normalize(image_proj(vit(pixel_values=x, output_hidden_states=True).hidden_states[-1].mean(1)).float(), dim=-1)


def text_features(which):
    inverse = None
    if a.style == "dedup":
        which, inverse = which.unique(return_inverse=True)
    lists = [ids_of[c] for c in which.tolist()]
    width = 64 if official else max(map(len, lists)) + 1
    ids = torch.full((len(lists), width), PAD); mask = torch.zeros(len(lists), width, dtype=torch.long)
    for n, r in enumerate(lists):
        ids[n, :len(r)], mask[n, :len(r)] = torch.tensor(r), 1
    last = mask.sum(1)
    if official:
        [[w.item() for w in r] for r in ids]
        o = lm(input_ids=ids, attention_mask=mask, output_attentions=True, return_dict=True)
        h = torch.stack([o.logits[b, last[b]] for b in range(len(last))])
    else:
        h = lm(input_ids=ids, attention_mask=mask).logits[torch.arange(len(last)), last]
    t = F.normalize(text_proj(h).float(), dim=-1)
    return t if inverse is None else t[inverse]


def step(index, augment=True):
    x = images(index, augment)
    with autocast:
        i, t = image_features(x), text_features(cap[index])
        s = i @ t.T * log_scale.exp()
        same = (cap[index][:, None] == cap[index][None]).float(); same = same / same.sum(1, keepdim=True)
        loss = F.cross_entropy(s, same) + F.cross_entropy(s.T, same)
    opt.zero_grad(set_to_none=True); loss.backward(); opt.step()
    return loss.item()


vit.train(); lm.train()
order = rng.permutation(train)
k = 0
for line in sys.stdin:
    command = line.strip()
    if command == "step":
        at = np.arange(k * a.batch, (k + 1) * a.batch) % len(order)
        k += 1
        t0 = time.perf_counter(); loss = step(order[at])
        answer = {"value": (time.perf_counter() - t0) * 1e3, "loss": loss}
    else:
        answer = {"value": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    print(json.dumps(answer), flush=True)
