"""The images and fields of the processor's golden results: the same numbers on every machine and in every version."""

import numpy as np

EDGES = [1, 2, 3, 17, 100, 223, 224, 225, 255, 256, 257, 300, 341, 375, 500, 640]
FIXED = [(1, 1), (1, 30), (30, 1), (2, 700), (700, 2), (256, 256), (255, 256), (375, 500), (500, 375), (427, 640)]
FIELDS = [
    {"size": {"shortest_edge": 30}, "crop_size": {"height": 31, "width": 47}},
    {"size": {"height": 20, "width": 50}, "crop_size": {"height": 33, "width": 33}},
    {"size": {"height": 64, "width": 48}, "do_center_crop": False},
    {"size": {"shortest_edge": 192}, "crop_size": {"height": 192, "width": 192}},
    {"do_resize": False, "crop_size": {"height": 150, "width": 150}},
    {"do_rescale": False},
    {"do_normalize": False},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [0.5, 0.6, 0.7]},
    {"resample": 0},
    {"resample": 1},
    {"resample": 2},
]


def _cases() -> list[dict]:
    sizes = FIXED + [tuple(map(int, pair)) for pair in np.random.default_rng(7).choice(EDGES, (60, 2))]
    cases = [{"size": size, "dtype": "uint8", "fields": {}} for size in sizes]
    for number, fields in enumerate(FIELDS):
        cases += [{"size": sizes[4 + 5 * number + i], "dtype": "uint8", "fields": fields} for i in range(3)]
    cases += [{"size": size, "dtype": "float32", "fields": {}} for size in [(100, 300), (375, 500)]]
    return [{"name": f"{number}", **case} for number, case in enumerate(cases)]


CASES = _cases()


def case_image(case: dict) -> np.ndarray:
    """[H, W, 3]: coarse structure and noise, clipped at both ends, from integers only."""
    height, width = case["size"]
    noise = np.random.default_rng(int(case["name"])).integers(-60, 60, (height, width, 3))
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    waves = (rows * 7 // 3 + columns * 5 // 2 + np.arange(3) * 40) % 320 - 30
    pixels = np.clip(waves + noise, 0, 255).astype(np.uint8)
    return (pixels / 255).astype(np.float32) if case["dtype"] == "float32" else pixels
