"""Model folders: which can be trained, loading them, and writing a folder for `pagesift generate`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer

from .attention import transformers_attention
from .checkpoint import read_json, write_file
from .errors import TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Ministral3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Phi3ForCausalLM",
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


def read_config(folder: str | Path) -> dict[str, Any]:
    """`config.json` of a supported model."""
    file = Path(folder) / "config.json"
    try:
        config = read_json(file)
    except TrainError as error:
        raise TrainError(f"{error}; expected a Hugging Face model folder", 3) from error
    names = config.get("architectures") or []
    if not any(name in ARCHITECTURES for name in names):
        raise TrainError(
            f'Architecture "{", ".join(names)}" of "{file}" is not supported; supported architectures: {", ".join(ARCHITECTURES)}', 3
        )
    return config


def load_tokenizer(folder: str | Path) -> Tokenizer:
    file = Path(folder) / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise TrainError(f'Cannot read "{file}": {error}', 3) from error


def load_model(folder: str | Path, device: torch.device | str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model with our attention, in `dtype` on `device`; never downloads."""
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    read_config(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=transformers_attention.NAME, dtype=dtype, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise TrainError(f'Cannot load "{folder}": {str(error).splitlines()[0]}', 3) from error
    return model.to(device)


def create_model(config: Any, device: torch.device, seed: int) -> PreTrainedModel:
    """A model with fresh weights. `config` is the content of a config.json."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    settings = {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype", "dtype", "transformers_version")}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**settings), attn_implementation=transformers_attention.NAME, dtype=torch.float32
    )
    return model.to(device)


def refuse_existing(out: str | Path) -> None:
    """A finished model is never overwritten."""
    if Path(out).exists():
        raise TrainError(f'"{out}" exists already; take another --out or delete it')


def export(
    model: PreTrainedModel,
    source: str,
    out: str | Path,
    run_folder: Path | None = None,
    sparsity: dict[str, Any] | None = None,
    shard_size: str = "4GB",
) -> None:
    """Writes weights in bf16, config, tokenizer files of `source`, sparsity.json and the progress of the run, if there was one."""

    def fill(folder: Path) -> None:
        save_weights(model, folder, shard_size)
        for name in TOKENIZER_FILES:
            if (Path(source) / name).is_file():
                shutil.copyfile(Path(source) / name, folder / name)

    write_folder(out, fill, run_folder, sparsity)


def write_folder(
    out: str | Path, fill: Callable[[Path], None], run_folder: Path | None = None, sparsity: dict[str, Any] | None = None
) -> None:
    """Calls `fill(folder)`, adds sparsity.json and the progress of the run, and removes the run's folder. `out` appears completely or not
    at all.
    """
    out = Path(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        if sparsity is not None:
            text = json.dumps(sparsity, indent=1) + "\n"
            write_file(partial / "sparsity.json", lambda stream: stream.write(text), binary=False)
        if run_folder is not None:
            shutil.copyfile(run_folder / "progress.jsonl", partial / "progress.jsonl")
        os.replace(partial, out)
    except (OSError, RuntimeError, TrainError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        whole = "; the run's checkpoint is whole" if run_folder is not None else ""
        raise TrainError(f'Cannot write "{out}": {reason}{whole}', 1) from error
    if run_folder is not None:
        shutil.rmtree(run_folder)


def save_weights(model: PreTrainedModel, folder: Path, shard_size: str) -> None:
    tied = bool(model.config.tie_word_embeddings)
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    model.save_pretrained(folder, state_dict=weights, max_shard_size=shard_size)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}, indent=1) + "\n", "utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)
