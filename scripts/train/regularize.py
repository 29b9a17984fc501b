"""Against memorising a few books: dropout during training, and the loss on held-out books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from .loop import say, weighted_loss

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from .loop import Loop


VALIDATION_CONTEXT, VALIDATION_WINDOWS = 4096, 16


def add_dropout(model: PreTrainedModel, share: float) -> list[torch.utils.hooks.RemovableHandle]:
    """Drops a share of the numbers that embedding, attention and MLP write to the residual stream. Weights and config do not change.

    Returns handles to remove it. Call it before layers are compiled.
    """
    if share == 0:
        return []

    def drop(module: torch.nn.Module, inputs: Any, out: Any) -> Any:
        first, *others = out if isinstance(out, tuple) else (out,)
        dropped = F.dropout(first, share, training=True)
        return (dropped, *others) if isinstance(out, tuple) else dropped

    decoder = model.get_decoder()
    writers = [part for layer in decoder.layers for part in (layer.self_attn.o_proj, layer.mlp)]
    return [part.register_forward_hook(drop) for part in (decoder.embed_tokens, *writers)]


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, tokens: np.ndarray) -> float | None:
    """Mean loss of dense attention over evenly spaced windows in `tokens`, in nats; None if there are too few tokens for one window."""
    length = VALIDATION_CONTEXT + 1
    if len(tokens) < length:
        return None
    device, losses = next(model.parameters()).device, []
    ones = torch.ones(1, VALIDATION_CONTEXT, device=device)
    with torch.compiler.set_stance("force_eager"), torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        for start in torch.linspace(0, len(tokens) - length, VALIDATION_WINDOWS).long().tolist():
            ids = torch.from_numpy(tokens[start : start + length].astype("int64"))[None].to(device)
            losses.append(weighted_loss(model, ids[:, :-1], ids[:, 1:], ones).item())
    return sum(losses) / len(losses)


def run_whole(loop: Loop, dropout: list[torch.utils.hooks.RemovableHandle], held_out: np.ndarray) -> bool:
    """Runs the remaining steps; True once all are done and the loss on held-out text is printed and recorded."""
    done = loop.run()
    loop.batches.close()
    if not done:
        return False
    for handle in dropout:
        handle.remove()
    loss = held_out_loss(loop.model, held_out)
    if loss is not None:
        loop.note(dict(held_out_loss=round(loss, 5), context=VALIDATION_CONTEXT))
        say(f"Held-out loss, read densely: {loss:.3f}")
    return True
