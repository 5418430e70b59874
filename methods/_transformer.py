"""What the attention explainers need of a vision transformer: its blocks and their attention."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention as TimmAttention  # type: ignore[attr-defined]
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.models import VisionTransformer as TorchvisionTransformer
from torchvision.models.vision_transformer import EncoderBlock as TorchvisionBlock

from methods._base import Backbone, Explainer, normalise, target_logits
from methods._networks import Logits

Change = Callable[[int, Tensor], Tensor]
"""The attention (B, heads, N, N) to use instead of that of the block of this index."""


@dataclass(frozen=True)
class Block:
    """One block: x + proj(attention(norm1(x))), and on that x + fc2(act(fc1(norm2(x)))).

    Linear layers act on tokens (B, N, D); `qkv_weight` is (3D, D), `qkv_bias` (3D,).
    """

    attention: nn.Module
    """The module whose `forward` does qkv, attention and proj."""
    qkv_weight: Tensor
    qkv_bias: Tensor | None
    heads: int
    scale: float
    """Of the products of queries and keys."""
    norm1: nn.LayerNorm
    proj: nn.Linear
    norm2: nn.LayerNorm
    fc1: nn.Linear
    act: nn.Module
    fc2: nn.Linear

    def split(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) as (B, heads, N, D / heads)."""
        heads: Tensor = tokens.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)

    def qkv(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, N, D / heads), of norm1's output (B, N, D)."""
        queries, keys, values = F.linear(tokens, self.qkv_weight, self.qkv_bias).chunk(3, dim=2)
        return self.split(queries), self.split(keys), self.split(values)


TIMM = {
    "attention": ("attn", TimmAttention),
    "norm1": ("norm1", nn.LayerNorm),
    "proj": ("attn.proj", nn.Linear),
    "norm2": ("norm2", nn.LayerNorm),
    "fc1": ("mlp.fc1", nn.Linear),
    "act": ("mlp.act", nn.Module),
    "fc2": ("mlp.fc2", nn.Linear),
}
"""Name and class of the parts of timm's block; its qkv is read beside."""
TORCHVISION = {
    "attention": ("self_attention", nn.MultiheadAttention),
    "norm1": ("ln_1", nn.LayerNorm),
    "proj": ("self_attention.out_proj", nn.Linear),
    "norm2": ("ln_2", nn.LayerNorm),
    "fc1": ("mlp.0", nn.Linear),
    "act": ("mlp.1", nn.Module),
    "fc2": ("mlp.3", nn.Linear),
}
"""Name and class of the parts of torchvision's block."""


def blocks(backbone: Backbone) -> list[Block]:
    """The blocks of a vision transformer of timm or torchvision, in running order.

    A subclass may compute anything else and is refused, like every module between the parts of a
    block that is not known to do nothing in eval mode (LayerScale, query norms, gates).

    Raises:
        ValueError: another network, another block, or logits that are not a linear function of
            the normalised CLS token.
    """
    network: Any = backbone.network
    if type(network) is TimmTransformer:
        kind, parts = TimmBlock, TIMM
    elif type(network) is TorchvisionTransformer:
        kind, parts = TorchvisionBlock, TORCHVISION
    else:
        made = network.model if isinstance(network, Logits) else network
        raise ValueError(
            f"backbone {backbone.name!r} is of class {type(made).__name__}: expected the "
            "VisionTransformer of timm or of torchvision"
        )
    head(backbone)
    layers = _layers(network)
    for index, layer in enumerate(layers):
        _check_block(f"block {index} of {backbone.name!r}", layer, kind, parts)
    return [_block(layer, parts) for layer in layers]


def head(backbone: Backbone) -> nn.Linear:
    """The linear layer from the normalised CLS token to the logits, of a network of `blocks`.

    Raises:
        ValueError: something else is there.
    """
    network: Any = backbone.network
    if isinstance(network, TimmTransformer):
        found = network.head
        pooling = network.global_pool
        plain = pooling == "token" and isinstance(network.fc_norm, nn.Identity)
    else:
        found = network.heads[-1]
        pooling = "token"
        plain = len(network.heads) == 1
    if not plain or not isinstance(found, nn.Linear):
        raise ValueError(
            f"backbone {backbone.name!r} has a head {type(found).__name__} on pooling "
            f"{pooling!r}: expected one Linear on the CLS token ('token'), with nothing between"
        )
    return found


def final_norm(backbone: Backbone) -> nn.Module:
    """What normalises the tokens after the last block, of a network of `blocks`."""
    network: Any = backbone.network
    found: nn.Module = network.norm if isinstance(network, TimmTransformer) else network.encoder.ln
    return found


def _layers(network: Any) -> list[nn.Module]:
    """The modules of the blocks, in running order."""
    timm = isinstance(network, TimmTransformer)
    return list(network.blocks if timm else network.encoder.layers)


def _check_block(where: str, layer: nn.Module, kind: type, parts: dict[str, Any]) -> None:
    if type(layer) is not kind:
        raise ValueError(f"{where} is a {type(layer).__name__}: expected a {kind.__name__}")
    modules = dict(layer.named_modules())
    for name, cls in parts.values():
        if not isinstance(modules.get(name), cls):
            found = type(modules.get(name)).__name__
            raise ValueError(f"{where} has a {found} as {name}: expected a {cls.__name__}")
    known = {name for name, _ in parts.values()} | {"attn.qkv"}
    for name, module in modules.items():
        leaf = not any(True for _ in module.children())
        if leaf and name not in known and not isinstance(module, nn.Identity | nn.Dropout):
            raise ValueError(
                f"{where} has a {type(module).__name__} as {name}: expected an Identity there"
            )


def _block(layer: nn.Module, parts: dict[str, Any]) -> Block:
    modules: dict[str, Any] = {p: layer.get_submodule(name) for p, (name, _) in parts.items()}
    attention = modules["attention"]
    if isinstance(attention, nn.MultiheadAttention):
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        scale = attention.head_dim**-0.5
    else:
        weight, bias, scale = attention.qkv.weight, attention.qkv.bias, attention.scale
    return Block(
        qkv_weight=weight, qkv_bias=bias, heads=attention.num_heads, scale=scale, **modules
    )


class AttentionExplainer(Explainer):
    """What reads the blocks of a vision transformer of timm or torchvision.

    Args:
        backbone: a vision transformer.

    Raises:
        ValueError: the backbone has no such blocks, see `blocks`.
    """

    kind = "attention"
    families = frozenset({"transformer"})

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self._depth = len(blocks(backbone))


@contextmanager
def attentions(backbone: Backbone, change: Change | None = None) -> Iterator[list[Tensor]]:
    """Within the block, each block's attention (B, heads, N, N) at the latest forward pass.

    The logits are as without, up to rounding. With gradients enabled, the list is part of the
    graph: the first attention becomes a leaf if it needs no gradient yet, so that
    `torch.autograd.grad(score, attentions)` works on a frozen network.

    Args:
        backbone: a vision transformer, see `blocks`; in eval mode.
        change: replaces the attention of each block; the list has what it returns.

    Raises:
        ValueError: the backbone is no such transformer.
    """
    collected: list[Tensor] = []
    own = {
        block.attention: _explicit(index, block, collected, change)
        for index, block in enumerate(blocks(backbone))
    }
    with computing(own):
        yield collected


@contextmanager
def computing(own: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Within the block, modules compute what their functions of the same arguments do."""
    before = {module: vars(module).get("forward") for module in own}
    try:
        for module, forward in own.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, kept in before.items():
            vars(module).pop("forward", None)
            if kept is not None:
                vars(module)["forward"] = kept


def _explicit(
    index: int, block: Block, collected: list[Tensor], change: Change | None
) -> Callable[..., Any]:
    """A `forward` of self-attention that computes the attention openly and keeps it."""

    def forward(tokens: Tensor, *_same: Tensor, **_options: object) -> Any:
        queries, keys, values = block.qkv(tokens)
        attention = (queries * block.scale @ keys.mT).softmax(dim=-1)
        if change is not None:
            attention = change(index, attention)
        if torch.is_grad_enabled() and not attention.requires_grad:
            attention = attention.detach().requires_grad_()
        collected[index:] = [attention]
        output = block.proj((attention @ values).transpose(1, 2).flatten(2))
        return (output, None) if isinstance(block.attention, nn.MultiheadAttention) else output

    return forward


@contextmanager
def separated(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Within the block, each block's output tokens (B, N, D) at the latest forward pass.

    The graph of an output begins at the input of its own block, and the logits at the last block's:
    a gradient stays within one block.

    Args:
        backbone: a vision transformer, see `blocks`.
    """
    outputs: list[Tensor] = []

    def begin(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].detach(), *inputs[1:])

    def keep(index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[index:] = [output]

        return hook

    handles: list[RemovableHandle] = []
    try:
        for index, layer in enumerate(_layers(backbone.network)):
            handles.append(layer.register_forward_pre_hook(begin))
            handles.append(layer.register_forward_hook(keep(index)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """Within the block, input and output of each module at the latest pass, out of the graph."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[module] = inputs[0].detach(), output.detach()

    handles: list[RemovableHandle] = []
    try:
        handles.extend(module.register_forward_hook(hook) for module in modules)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def attention_gradients(
    backbone: Backbone, images: Tensor, targets: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Each block's attention, and the gradient there of the targets' logits: 1 forward, 1 backward.

    Args:
        backbone: a vision transformer, see `blocks`.
        images: (B, 3, H, W) in [0, 1].
        targets: (B,), the explained classes.

    Returns:
        Attentions and gradients, a tensor (B, heads, N, N) a block each.
    """
    with torch.enable_grad(), attentions(backbone) as collected:
        logits = backbone(images.detach())
        gradients = torch.autograd.grad(target_logits(logits, targets).sum(), collected)
    return [attention.detach() for attention in collected], list(gradients)


def identity_like(matrices: Tensor) -> Tensor:
    """The identity (N, N) of the kind of matrices (..., N, N)."""
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


def cls_row(matrices: Sequence[Tensor]) -> Tensor:
    """The row of CLS (B, N) of the product of the blocks' matrices (B, N, N), the last leftmost."""
    row = matrices[-1][:, :1]
    for matrix in reversed(matrices[:-1]):
        row = row @ matrix
    return row[:, 0]


def rolled_out(attentions: Sequence[Tensor]) -> Tensor:
    """How much of each token is in CLS at the end (B, N), from attentions (B, heads, N, N).

    Mean over heads; the skip connection is an attention of 1 to the token itself, and rows of
    A + 1 are normalised.
    """
    mixed = [attention.mean(dim=1) + identity_like(attention) for attention in attentions]
    return cls_row([matrix / matrix.sum(dim=-1, keepdim=True) for matrix in mixed])


def weighted_rollout(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The CLS row (B, N) of the product of 1 + mean_h((gradient * value)^+) over the blocks.

    Values and gradients are tensors (B, heads, N, N), one a block. Rows are not normalised.
    """
    return cls_row(
        [
            identity_like(value) + (gradient * value).clamp(min=0).mean(dim=1)
            for value, gradient in zip(values, gradients, strict=True)
        ]
    )


def token_maps(backbone: Backbone, scores: Tensor) -> Tensor:
    """Maps (B, h, w), float32 in [0, 1], of scores (B, N) of all tokens: the patches' grid."""
    return normalise(backbone.grid(scores[:, :, None])[:, 0].float())
