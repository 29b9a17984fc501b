"""A run's state on disk: written to a new file and renamed, so that a kill at any moment leaves a complete checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from .errors import TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def write_file(path: str | Path, write: Callable[[IO[Any]], object], binary: bool = True) -> None:
    """Calls `write(stream)` on a new file and replaces `path` with it; a failed write leaves nothing."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb" if binary else "w") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainError(f'Cannot write "{path}": {reason}; the last checkpoint is whole', 1) from error


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f'Cannot read "{path}": {getattr(error, "strerror", None) or error}', 3) from error
    if not isinstance(content, dict):
        raise TrainError(f'Cannot read "{path}": expected a JSON object', 3)
    return content


class Checkpoint:
    """`checkpoint.pt` of a run's folder: step, weights, optimizer, and the settings that a continuation must share."""

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.file, self.settings = Path(folder) / "checkpoint.pt", json.loads(json.dumps(settings))

    def load(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> int:
        """Steps done so far; 0 without a checkpoint."""
        if not self.file.exists():
            return 0
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise TrainError(f'Cannot read "{self.file}": {error}; delete it to begin again', 3) from error
        other = [name for name in self.settings if state["settings"].get(name) != self.settings[name]]
        if other:
            changes = ", ".join(f"{name} was {state['settings'].get(name)}, now {self.settings[name]}" for name in other)
            raise TrainError(f'"{self.file}" is of a run with other settings ({changes}); take another --out or delete it')
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"]

    def save(self, step: int, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
        state = dict(step=step, settings=self.settings, model=model.state_dict(), optimizer=optimizer.state_dict())
        write_file(self.file, lambda stream: torch.save(state, stream))
