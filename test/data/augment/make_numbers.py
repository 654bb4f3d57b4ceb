#!/usr/bin/env python3
"""Writes input.json and input.safetensors: what the published transforms make of given images with given parameters.

    make_numbers.py

torchvision's transforms on PIL images are thin: Resize is Image.resize (bilinear), ColorJitter is ImageEnhance.Brightness
and .Contrast, RandomAffine is Image.transform with the inverse matrix of functional._get_inverse_affine_matrix about
(width / 2, height / 2), hflip is Image.transpose. GaussianBlur is a depthwise conv2d of the image as float32, its border
reflected, rounded. Written out here with PIL and torch alone. Order: datasets/transforms.py, Moco2Transform,
github.com/XYPB/CLEFT.
"""
import json, math, random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from safetensors.numpy import save_file


def picture(number, side):
    """The same formula is in input.test.ts: no input needs to be stored."""
    y, x = np.mgrid[0:side, 0:side].astype(np.int64)
    fine = ((x * x * (3 + number) + y * y * 5 + x * y * 7) >> 5) % 256
    coarse = (x * 255 // (side - 1) + y * 255 // (side - 1)) // 2
    return ((fine + 3 * coarse) // 4).astype(np.uint8)


def blurred(image, sigma):
    taps = torch.linspace(-3, 3, steps=7)
    kernel = torch.exp(-0.5 * (taps / sigma).pow(2))
    kernel = kernel / kernel.sum()
    square = torch.mm(kernel[:, None], kernel[None, :])[None, None]
    values = torch.from_numpy(np.array(image)).float()[None, None]
    wide = torch.nn.functional.pad(values, [3, 3, 3, 3], mode="reflect")
    return Image.fromarray(torch.nn.functional.conv2d(wide, square)[0, 0].round().to(torch.uint8).numpy())


def moved(image, angle, scale, shift):
    side = image.width
    turn, center = math.radians(angle), side * 0.5
    x, y = (int(round(each * side)) for each in shift)
    matrix = [each / scale for each in (math.cos(turn), math.sin(turn), 0.0, -math.sin(turn), math.cos(turn), 0.0)]
    matrix[2] += matrix[0] * (-center - x) + matrix[1] * (-center - y) + center
    matrix[5] += matrix[3] * (-center - x) + matrix[4] * (-center - y) + center
    return image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0)


def published(pixels, case):
    top, left, bottom, right = case["box"]
    size, room = case["size"], case["to"] - case["size"]
    image = Image.fromarray(pixels[top : bottom + 1, left : right + 1])
    # Pillow 10, which the published code pins, makes columns first; later ones begin with the longer side
    for sides in ((case["to"], image.height), (case["to"], case["to"])):
        image = image.resize(sides, Image.Resampling.BILINEAR)
    a = case["augmentation"]
    place = [room / 2] * 2 if a is None else [min(room, math.floor(a["crop"][each] * (room + 1))) for each in ("top", "left")]
    row, column = (int(round(each)) for each in place)
    image = image.crop((column, row, column + size, row + size))
    if a is None:
        return image
    if a["jitter"]:
        jitter = a["jitter"]
        steps = [(ImageEnhance.Brightness, jitter["brightness"]), (ImageEnhance.Contrast, jitter["contrast"])]
        for enhance, factor in reversed(steps) if jitter["contrastFirst"] else steps:
            image = enhance(image).enhance(factor)
    if a["sigma"] is not None:
        image = blurred(image, a["sigma"])
    affine = a["affine"]
    image = moved(image, affine["angle"], affine["scale"], (affine["shift"]["x"], affine["shift"]["y"]))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if a["flip"] else image


def drawn(rng, jitter, blur):
    return {
        "crop": {"top": rng.random(), "left": rng.random()},
        "jitter": {
            "brightness": rng.uniform(0.8, 1.2), "contrast": rng.uniform(0.8, 1.2), "contrastFirst": rng.random() < 0.5,
        } if jitter else None,
        "sigma": rng.uniform(0.1, 2) if blur else None,
        "affine": {
            "angle": rng.uniform(-10, 10), "scale": rng.uniform(0.8, 1.1),
            "shift": {"x": rng.uniform(-0.0625, 0.0625), "y": rng.uniform(-0.0625, 0.0625)},
        },
        "flip": rng.random() < 0.5,
    }


rng = random.Random(0)
cases, results = [], {}
boxes = [[0, 0, 95, 95], [10, 3, 80, 90], [40, 40, 70, 60], [5, 5, 5, 5], [0, 20, 95, 23]]
for number in range(20):
    augmentation = None if number < 5 else drawn(rng, number % 2, number // 2 % 2)
    cases.append({"picture": number % 4, "side": 96, "box": boxes[number % 5], "size": 56, "to": 64 if number % 3 == 0 else 56,
                  "augmentation": augmentation})
for number in range(3):
    augmentation = None if number == 0 else drawn(rng, True, True)
    cases.append({"picture": number, "side": 256, "box": [12, 30, 240 - number, 255], "size": 224, "to": 256 if number == 2 else 224,
                  "augmentation": augmentation})
for number, case in enumerate(cases):
    results[str(number)] = np.array(published(picture(case["picture"], case["side"]), case))

here = Path(__file__).parent
(here / "input.json").write_text(json.dumps(cases, indent=1) + "\n")
save_file(results, here / "input.safetensors")
