"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685): a product of two small matrices beside every projection of a frozen model.

Files have the layout of the PEFT library: adapter_model.safetensors and adapter_config.json.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from .checkpoint import read_json
from .errors import TrainError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel


TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."


class LoraLinear(torch.nn.Module):
    """A frozen linear layer plus scale * B A x. A [rank, in] starts random and B [out, rank] at 0, so training begins at the base."""

    def __init__(self, base: torch.nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), scale
        numbers = dict(device=base.weight.device, dtype=torch.float32)
        self.lora_A = torch.nn.Parameter(torch.empty(rank, base.in_features, **numbers))
        self.lora_B = torch.nn.Parameter(torch.zeros(base.out_features, rank, **numbers))
        torch.nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + F.linear(F.linear(x, self.lora_A), self.lora_B) * self.scale


def add_lora(model: PreTrainedModel, rank: int, seed: int) -> None:
    """Freezes the model and puts an adapter beside every projection of its layers, with alpha = 2 * rank. Call it before compiling."""
    model.requires_grad_(False)
    torch.manual_seed(seed)
    for module in list(model.get_decoder().layers.modules()):
        for name, child in module.named_children():
            if name in TARGETS and isinstance(child, torch.nn.Linear):
                setattr(module, name, LoraLinear(child, rank, 2.0))
    if not adapters(model):
        raise TrainError(f"The model has none of the projections {', '.join(TARGETS)} that --lora adapts", 3)


def adapters(model: PreTrainedModel) -> dict[str, LoraLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def save_adapter(model: PreTrainedModel, folder: Path, base: str) -> None:
    """Writes the adapters in bf16; `base` is the name of the model that they belong to."""
    tensors, found = {}, adapters(model)
    for name, module in found.items():
        for part in ("lora_A", "lora_B"):
            tensors[f"{PREFIX}{name}.{part}.weight"] = getattr(module, part).detach().to("cpu", torch.bfloat16).contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    rank = next(iter(found.values())).lora_A.shape[0]
    config = dict(
        peft_type="LORA",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=sorted({name.rpartition(".")[2] for name in found}),
        bias="none",
        fan_in_fan_out=False,
        use_rslora=False,
        use_dora=False,
        modules_to_save=None,
        inference_mode=True,
    )
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    (folder / WEIGHTS).chmod(0o644)


def pairs_of(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name of a projection, what its weight changes by [out, in] in f32) for an adapter folder that save_adapter wrote."""
    config: dict[str, Any] = read_json(folder / CONFIG)
    try:
        tensors, scale = load_file(folder / WEIGHTS), config["lora_alpha"] / config["r"]
        for name, down in tensors.items():
            if name.endswith(".lora_A.weight"):
                up = tensors[name.replace(".lora_A.", ".lora_B.")]
                yield name.removeprefix(PREFIX).removesuffix(".lora_A.weight"), scale * up.float() @ down.float()
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise TrainError(f'Cannot read the adapter "{folder}": {error}', 3) from error


@torch.no_grad()
def merge_adapter(model: PreTrainedModel, folder: str | Path) -> None:
    """Adds the adapter in `folder` to the weights of the model."""
    modules = dict(model.named_modules())
    for name, change in pairs_of(Path(folder)):
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or weight.shape != change.shape:
            raise TrainError(f'The adapter "{folder}" changes "{name}", which the model does not have in that shape', 3)
        weight += change.to(weight.device, weight.dtype)
