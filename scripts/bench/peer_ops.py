#!/usr/bin/env python3
"""The Python side of `npm run bench -- ops`: reads a command a line, answers each with a line of JSON.

    add N          microseconds of a 4-element add, over N
    add_grad N     the same where one side requires a gradient
    step N         milliseconds of a training step of a 12-layer, 192-wide transformer (batch 8, 197 tokens), median of N
"""
import json, sys, time
import torch, torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, C))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


torch.manual_seed(0)
p, q, g = torch.ones(4), torch.ones(4), torch.ones(4, requires_grad=True)
net = nn.Sequential(*[Block(192, 3) for _ in range(12)])
adamw = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
x = torch.randn(8, 197, 192)


def add(left, n):
    start = time.perf_counter()
    for _ in range(n):
        left + q
    return (time.perf_counter() - start) / n * 1e6


def step():
    start = time.perf_counter()
    loss = net(x).square().mean()
    adamw.zero_grad()
    loss.backward()
    adamw.step()
    loss.item()
    return (time.perf_counter() - start) * 1e3


for line in sys.stdin:
    name, n = line.split()
    if name == "step":
        value = sorted(step() for _ in range(int(n)))[int(n) // 2]
    else:
        value = add(g if name == "add_grad" else p, int(n))
    print(json.dumps({"value": value}), flush=True)
