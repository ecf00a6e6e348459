"""Makes the golden LeViT files beside it: one tiny random LeViT in the authors' and timm's two forms, with its answers.

Run once, in an environment that has torch, torchvision and timm (which must not share ours), with a checkout of the
authors' code (github.com/facebookresearch/LeViT; only the classes of its levit.py are used):

    python tests/golden/make_levit.py PATH_TO_LEVIT_CHECKOUT

Files: levit_authors.pth; levit_timm/ and levit_conv_timm/ (model.safetensors, config.json as timm writes them);
levit_answers.npz: `pixels` uint8 [3, 80, 80, 3] and, for the normalised pixels, the logits and pooled features of
the authors' code, and those of timm in each form. The weights are rounded to float16 to halve the files; all
computing is in float32.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models._hub import save_for_hf

HERE = Path(__file__).parent
WIDTHS, HEADS, DEPTHS, KEY_DIM, SIDE, CLASSES = (16, 24, 32), (2, 3, 4), (1, 2, 1), 4, 80, 5


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    pixels = patterns(np.random.default_rng(0))
    inputs = normalised(pixels)
    authors = authors_model()
    randomise(authors, inputs)
    answers = {"pixels": pixels, "authors_logits": authors(inputs), "authors_pooled": authors_pooled(authors, inputs)}
    weights = {name: half(tensor) for name, tensor in authors.state_dict().items()}
    torch.save({"model": weights, "epoch": 3}, HERE / "levit_authors.pth")
    for name in ("levit", "levit_conv"):
        model = timm_model(name, authors)
        answers[f"{name}_logits"] = model(inputs)
        features = model.forward_features(inputs)
        answers[f"{name}_pooled"] = model.forward_head(features, pre_logits=True)
    np.savez_compressed(HERE / "levit_answers.npz", **{name: np.asarray(value) for name, value in answers.items()})


def patterns(rng: np.random.Generator) -> np.ndarray:
    """Three colourful smooth patterns that differ from each other."""
    coarse = torch.tensor(rng.uniform(0, 255, (3, 3, 9, 9)), dtype=torch.float32)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    return smooth.permute(0, 2, 3, 1).byte().numpy()


def normalised(pixels: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - mean) / std


def authors_model() -> torch.nn.Module:
    import levit

    return levit.LeViT(
        img_size=SIDE,
        num_classes=CLASSES,
        embed_dim=list(WIDTHS),
        key_dim=[KEY_DIM] * 3,
        depth=list(DEPTHS),
        num_heads=list(HEADS),
        attn_ratio=[2, 2, 2],
        mlp_ratio=[2, 2, 2],
        down_ops=[["Subsample", KEY_DIM, width // KEY_DIM, 4, 2, 2] for width in WIDTHS[:2]],
        hybrid_backbone=levit.b16(WIDTHS[0], activation=torch.nn.Hardswish),
    )


def randomise(model: torch.nn.Module, inputs: torch.Tensor) -> None:
    """Random everything, batch-norm statistics from the inputs, all of it float16 numbers."""
    torch.manual_seed(1)
    for name, tensor in model.named_parameters():
        tensor.normal_(0, 0.5 if "attention_biases" in name else 0.08)
        if "bn.weight" in name:
            tensor.add_(1)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    for part in norms:
        part.momentum = None
    model.train()
    model(inputs)
    model.load_state_dict({name: half(tensor) for name, tensor in model.state_dict().items()})
    model.eval()


def half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def authors_pooled(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model.blocks(model.patch_embed(inputs).flatten(2).transpose(1, 2)).mean(1)


def timm_model(name: str, authors: torch.nn.Module) -> torch.nn.Module:
    shape = dict(embed_dim=WIDTHS, key_dim=KEY_DIM, num_heads=HEADS, depth=DEPTHS, img_size=SIDE, num_classes=CLASSES)
    model = timm.create_model(f"{name}_128s", **shape).eval()
    model.load_state_dict(in_timms_order(authors, model))
    folder = HERE / f"{name}_timm"
    save_for_hf(model, folder, safe_serialization=True)
    weights = {key: half(tensor) for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def in_timms_order(authors: torch.nn.Module, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Both list the same tensors in the same order, which is how timm and transformers converted the published weights."""
    given = {name: tensor for name, tensor in authors.state_dict().items() if "attention_bias_idxs" not in name}
    pairs = zip(model.state_dict().items(), given.values(), strict=True)
    return {name: tensor.reshape(like.shape) for (name, like), tensor in pairs}


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1])
