"""Writes numbers.json: what PyTorch and transformers make of small optimizations. Run with torch 2.13, transformers 5.23.

    python test/torch/optim/make_numbers.py
"""
import json
import pathlib

import numpy
import torch
from transformers.optimization import Adafactor

SHAPES = [[4, 3], [5], [2, 3, 2]]
STEPS = 5


def run(name, make, dtype=torch.float32, split=None):
    generator = torch.Generator().manual_seed(len(name))
    params = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in SHAPES]
    start = [flat(p) for p in params]
    optimizer = make(params if split is None else [dict(params=params[:split[0]], **split[1]), dict(params=params[split[0]:], **split[2])])
    grads, outs = [], []
    for step in range(STEPS):
        now = []
        for index, p in enumerate(params):
            # the second parameter is without a gradient in the second step
            p.grad = None if (step, index) == (1, 1) else torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype)
            now.append(None if p.grad is None else flat(p.grad))
        optimizer.step()
        grads.append(now)
        outs.append([flat(p) for p in params])
    saved = optimizer.state_dict()
    return dict(
        name=name, optimizer=type(optimizer).__name__, dtype=str(dtype).removeprefix('torch.'), shapes=SHAPES,
        start=start, grads=grads, outs=outs,
        param_groups=[{k: list(v) if isinstance(v, tuple) else v for k, v in g.items()} for g in saved['param_groups']],
        state={k: {n: [list(t.shape), flat(t)] if torch.is_tensor(t) else t for n, t in v.items()} for k, v in saved['state'].items()},
    )


def flat(tensor):
    values = tensor.detach().double().flatten().tolist()
    # the shortest decimals that are the same float32
    return [float(str(numpy.float32(v))) for v in values] if tensor.dtype == torch.float32 else values


A, W, S, F = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, Adafactor
cases = [
    run('adam', lambda p: A(p, lr=0.01)),
    run('adam-decay-amsgrad-maximize', lambda p: A(p, lr=0.01, weight_decay=0.1, amsgrad=True, maximize=True, betas=(0.8, 0.95))),
    run('adam-decay', lambda p: A(p, lr=0.01, weight_decay=0.1, eps=1e-6)),
    run('adam-no-memory', lambda p: A(p, lr=0.01, betas=(0.0, 0.5))),
    run('adamw-amsgrad', lambda p: W(p, lr=0.02, weight_decay=0.1, amsgrad=True)),
    run('adamw-maximize-float64', lambda p: W(p, lr=0.02, maximize=True), torch.float64),
    run('adamw-groups', lambda p: W(p, lr=0.02, eps=1e-7), split=(1, dict(lr=0.1, weight_decay=0.2), dict(weight_decay=0.0))),
    run('adamw-bfloat16', lambda p: W(p, lr=0.02), torch.bfloat16),
    run('sgd', lambda p: S(p, lr=0.05)),
    run('sgd-nesterov-decay', lambda p: S(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)),
    run('sgd-nesterov', lambda p: S(p, lr=0.05, momentum=0.9, nesterov=True)),
    run('sgd-dampening-maximize', lambda p: S(p, lr=0.05, momentum=0.8, dampening=0.3, maximize=True, weight_decay=0.01)),
    run('sgd-groups', lambda p: S(p, lr=0.05, momentum=0.5), split=(2, dict(lr=0.5), dict(momentum=0.0))),
    run('adafactor-defaults', lambda p: F(p)),
    run('adafactor-warmup-decay', lambda p: F(p, warmup_init=True, weight_decay=0.1, beta1=0.9)),
    run('adafactor-scaled', lambda p: F(p, lr=0.03, relative_step=False, clip_threshold=0.5, decay_rate=-0.6)),
    run('adafactor-bfloat16', lambda p: F(p, lr=0.03, relative_step=False, scale_parameter=False), torch.bfloat16),
]
path = pathlib.Path(__file__).with_name('numbers.json')
path.write_text(json.dumps(dict(torch=torch.__version__, cases=cases), separators=(',', ':')) + '\n')
