"""Makes ids.json and hidden.safetensors beside this file with Python's tokenizers and transformers: python make.py

What they make of the small language model of the package, src/models/presets/cleft-report-lm: to be made again when that is.
(Made with transformers 5.23, tokenizers 0.23, torch 2.13.)
"""
import json
import os

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "../../../../src/models/presets/cleft-report-lm")
TEXTS = [
    "this is a chest x ray of a patient with edema pleural effusion",
    "this is a chest x ray of a patient with no finding but this image has no pneumothorax",
    "This is a breast 2D full-field digital mammogram of a patient with BIRADS score 4: suspicious abnormality.",
    "edema",
    " edema",
    "",
    " ",
    "Pleural  Effusion\n\tEDEMA",
    "the heart isn't enlarged (12.5 cm), 2018-03-04",
    "naïve Ödem – 肺水肿 🫁",
    "İ ẞ \u00a0x\u2028y",
    "edema<|endoftext|>pneumonia",
    "antidisestablishmentarianism",
]

tokenizer = AutoTokenizer.from_pretrained(MODEL)
plain = Tokenizer.from_file(os.path.join(MODEL, "tokenizer.json"))
ids = [tokenizer(text)["input_ids"] for text in TEXTS]
assert ids == [plain.encode(text).ids for text in TEXTS]
with open(os.path.join(HERE, "ids.json"), "w") as file:
    json.dump({"texts": TEXTS, "ids": ids, "decoded": [plain.decode(each) for each in ids]}, file, indent=1)

model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
rows = tokenizer(TEXTS[:2], padding=True, padding_side="right", return_tensors="pt")
with torch.no_grad():
    output = model(**rows, output_hidden_states=True)
save_file(
    {
        "input_ids": rows["input_ids"],
        "attention_mask": rows["attention_mask"],
        "embeddings": output.hidden_states[0].contiguous(),
        "last_hidden": output.hidden_states[-1].contiguous(),
        "last_logits": output.logits[:, 0].contiguous(),
    },
    os.path.join(HERE, "hidden.safetensors"),
)
