"""Makes adalora.json beside this file with Python's peft: python make_numbers.py

A net of three linear layers learns for 60 steps with AdaLoRA. The file has the weights that it starts with, and after
each step the budget, which triplets are kept, lora_E and the loss. (Made with torch 2.13, peft 0.21.)
"""
import json
import os

import torch
from peft import AdaLoraConfig, get_peft_model
from torch import nn

torch.manual_seed(5)
SCHEDULES = {
    "every": dict(init_r=4, target_r=2, tinit=8, tfinal=12, deltaT=1, total_step=60, beta1=0.85, beta2=0.85, orth_reg_weight=0.5, lora_alpha=8),
    "seldom": dict(init_r=5, target_r=1, tinit=0, tfinal=7, deltaT=4, total_step=60, beta1=0.9, beta2=0.7, orth_reg_weight=0.1, lora_alpha=3),
}
SIZES = {"first": (6, 5), "second": (5, 7), "third": (7, 3)}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for name, (i, o) in SIZES.items():
            setattr(self, name, nn.Linear(i, o))

    def forward(self, x):
        return self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))


def data(step):
    x = torch.sin(torch.arange(8 * 6, dtype=torch.float64).view(8, 6) * (0.37 + 0.01 * step) + step)
    return x.float(), torch.cos(x[:, :3] * 2 + x[:, 3:]).float()


def orthogonal(model, weight):
    norms = [torch.norm((p @ p.T if "lora_A" in n else p.T @ p) - torch.eye(p.shape[0] if "lora_A" in n else p.shape[1]), p="fro")
             for n, p in model.named_parameters() if "lora_A" in n or "lora_B" in n]
    return weight * sum(norms) / len(norms)


out = {"sizes": SIZES, "cases": {}}
for case, settings in SCHEDULES.items():
    net = Net()
    start = {n: p.tolist() for n, p in net.state_dict().items()}
    model = get_peft_model(net, AdaLoraConfig(target_modules=list(SIZES), **settings))
    start.update({n.removeprefix("base_model.model.").replace(".default", ""): p.tolist() for n, p in model.named_parameters() if "lora_" in n})
    start = {n: v for n, v in start.items() if "ranknum" not in n}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
    steps = []
    for step in range(settings["total_step"]):
        x, y = data(step)
        loss = nn.functional.mse_loss(model(x), y) + orthogonal(model, settings["orth_reg_weight"])
        loss.backward()
        optimizer.step()
        budget = model.base_model.rankallocator.budget_schedule(step)[0]
        model.base_model.update_and_allocate(step)
        pattern = model.peft_config["default"].rank_pattern
        steps.append({
            "loss": loss.item(), "budget": budget,
            "kept": None if pattern is None else {n.split(".lora_E")[0].removeprefix("base_model.").removeprefix("model."): "".join("01"[k] for k in v) for n, v in pattern.items()},
            "e": {n: [float(f"{v:.7g}") for v in model.base_model.model.get_submodule(n).lora_E["default"].flatten().tolist()] for n in SIZES},
        })
        optimizer.zero_grad()
    out["cases"][case] = {"settings": settings, "start": start, "steps": steps}
    print(case, [s["kept"] for s in steps[-1:]], steps[0]["loss"], steps[-1]["loss"], len({json.dumps(s["kept"]) for s in steps}))
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "adalora.json"), "w") as f:
    json.dump(out, f)
    f.write("\n")
