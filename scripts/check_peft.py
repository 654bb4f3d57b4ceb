"""The Python side of check-peft.mjs: loads each adapter of a folder with peft, compares outputs, saves it again."""
import json
import os
import sys
import warnings

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def check(folder):
    with open(os.path.join(folder, "case.json")) as f:
        case = json.load(f)
    io = load_file(os.path.join(folder, "io.safetensors"))
    model = getattr(transformers, case["auto"]).from_pretrained(case["model"]).eval()
    with warnings.catch_warnings():
        # keys that do not fit are warnings there
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="(?s).*(invalid shape|could not find a config file).*")
        # peft says so of the AdaLoRA adapters that it writes itself
        warnings.filterwarnings("ignore", message="(?s).*rank_pattern keys did not match.*lora_E.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        model = PeftModel.from_pretrained(model, os.path.join(folder, "adapter")).eval()
    with torch.no_grad():
        out = model(input_ids=io["input_ids"], attention_mask=io["attention_mask"], output_hidden_states=True).hidden_states[-1]
    extra = out.shape[1] - io["input_ids"].shape[1]
    seen = torch.cat([torch.ones(out.shape[0], extra, dtype=torch.long), io["attention_mask"]], 1)
    difference = (out * seen.unsqueeze(-1) - io["hidden"]).abs().max().item()
    model.save_pretrained(os.path.join(folder, "again"))
    return {"difference": difference}


for name in sorted(os.listdir(sys.argv[1]), key=int):
    inside = os.path.join(sys.argv[1], name)
    try:
        result = check(inside)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"[:2000]}
    with open(os.path.join(inside, "result.json"), "w") as f:
        json.dump(result, f)
