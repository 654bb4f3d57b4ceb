#!/usr/bin/env python3
"""The Python side of `npm run bench -- data`: a torch DataLoader with OpenCV, one gray channel throughout; reads a command a
line, answers each with a line of JSON.

    peer_data.py LIST [--batch N] [--workers N]
    pass EPOCH     milliseconds an image of one pass over the files that LIST names, a line each: read, decoded, longest side
                   to 256 by area, padded, Otsu's crop, stretched to 224 (antialiased), jitter, blur, affine, flip,
                   normalised, batched; in worker processes that are there already

The steps and their parameters are the published ones (datasets/utils.py, transforms.py, github.com/XYPB/CLEFT), the fastest
call of OpenCV and PIL for each. DICOM by pydicom.
"""
import argparse, json, math, random, sys, time

import cv2
import numpy as np
import torch
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("list"); parser.add_argument("--batch", type=int, default=32); parser.add_argument("--workers", type=int, default=2)
options = parser.parse_args()
with open(options.list) as file:
    paths = file.read().splitlines()


def read(path):
    if not path.endswith(".dcm"):
        return cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    import pydicom
    dicom = pydicom.dcmread(path)
    pixels = dicom.pixel_array
    pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / pixels.max())
    return cv2.bitwise_not(pixels) if dicom.PhotometricInterpretation == "MONOCHROME1" else pixels


def pad(image, side=256):
    height, width = image.shape
    scale = side / max(height, width)
    height, width = (side, int(width * scale)) if height >= width else (int(height * scale), side)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=0)


def otsu(image):
    _, mask = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    left, top, width, height = cv2.boundingRect(mask)
    return image[top : top + height, left : left + width] if width and height else image


def augment(image, rng):
    side = image.shape[0]
    if rng.random() < 0.4:
        brightness, contrast = rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2)
        image = cv2.convertScaleAbs(image, alpha=brightness)
        image = cv2.convertScaleAbs(image, alpha=contrast, beta=(1 - contrast) * round(cv2.mean(image)[0]))
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (7, 7), rng.uniform(0.1, 2))
    turn, scale = math.radians(rng.uniform(-10, 10)), rng.uniform(0.8, 1.1)
    x, y = (round(rng.uniform(-0.0625, 0.0625) * side) for _ in range(2))
    cosine, sine, middle = math.cos(turn) / scale, math.sin(turn) / scale, side / 2
    matrix = np.array([[cosine, sine, middle - cosine * (middle + x) - sine * (middle + y)],
                       [-sine, cosine, middle + sine * (middle + x) - cosine * (middle + y)]])
    image = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return len(paths)

    def __getitem__(self, index):
        image = Image.fromarray(otsu(pad(read(paths[index])))).resize((224, 224), Image.Resampling.BILINEAR)
        image = augment(np.asarray(image), random.Random(index))
        return torch.from_numpy(image)[None].float().div_(127.5).sub_(1)


def start(_):
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


loader = torch.utils.data.DataLoader(Images(), batch_size=options.batch, shuffle=True, num_workers=options.workers,
                                     persistent_workers=True, worker_init_fn=start)
for line in sys.stdin:
    begin = time.perf_counter()
    count = sum(len(batch) for batch in loader)
    print(json.dumps({"value": (time.perf_counter() - begin) * 1e3 / count}), flush=True)
