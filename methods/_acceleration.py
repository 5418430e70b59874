"""The same network, faster: what is exact, or exact but for the rounding of folded batch norms."""

import copy
from itertools import pairwise
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods._base import Backbone


def accelerate(backbone: Backbone, device: str | torch.device) -> Backbone:
    """The backbone on its device, as fast as it goes exactly; its network is altered."""
    compute_exactly()
    backbone.network = fold_batch_norms(backbone.network.cpu(), backbone.size)
    pad_in_kernels(backbone.network)
    return backbone.to(device).to(memory_format=torch.channels_last)


def compute_exactly() -> None:
    """Let GPUs compute convolutions and products in float32 (not TF32), the same in every run."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def fold_batch_norms(network: nn.Module, size: int) -> nn.Module:
    """A copy with every batch norm that follows a convolution folded into it (eval mode).

    Names of modules stay; a folded batch norm keeps its activation only. Where the order of the
    modules is not the order of the computation, or the network reads what is folded, the copy gives
    other logits or none: then the network comes back as it was.

    Args:
        network: in eval mode.
        size: side of an image to compare logits on, in pixels.
    """
    folded = copy.deepcopy(network)
    for parent in list(folded.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and _is_norm_of(norm, conv):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Sequential(*norm.children()))
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        old = network(image)
        try:
            new = folded(image)
        except Exception:  # it reads what is folded, whatever that raises
            return network
    same = torch.allclose(old, new, rtol=1e-3, atol=1e-3 * float(old.abs().max()))
    return folded if same else network


def _is_norm_of(norm: nn.Module, conv: nn.Conv2d) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a module is a batch norm, with statistics, of the channels of a convolution."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return False
    return bool(norm.num_features == conv.out_channels)


def pad_in_kernels(network: nn.Module) -> None:
    """Put KernelPaddedConv2d, with the same weights, in place of timm's Conv2dSame."""
    for parent in list(network.modules()):
        for name, conv in parent.named_children():
            if type(conv) is Conv2dSame and conv.dilation == (1, 1):
                setattr(parent, name, KernelPaddedConv2d.of(conv))


class KernelPaddedConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's `same`, which on one side is more than on the other.

    timm's Conv2dSame copies the image into a larger one for that. Here the kernel gets a first row
    and column of zeros, so that padding is even and needs no copy: the values are the same. With
    gradients the image is copied as there, since theirs would be rounded in another way.
    """

    @classmethod
    def of(cls, conv: Conv2dSame) -> "KernelPaddedConv2d":
        """The same convolution, with the same tensors."""
        sizes: dict[str, Any] = {"kernel_size": conv.kernel_size, "stride": conv.stride}
        made = cls(conv.in_channels, conv.out_channels, groups=conv.groups, device="meta", **sizes)
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) at the convolution's stride, see torch.nn.Conv2d."""
        sides = zip(features.shape[2:], self.kernel_size, self.stride, strict=True)
        rows, columns = (get_same_padding(n, kernel, step, 1) for n, kernel, step in sides)
        if features.requires_grad:
            left, top = columns // 2, rows // 2
            padded = F.pad(features, (left, columns - left, top, rows - top))
            return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)
        weight = F.pad(self.weight, (columns % 2, 0, rows % 2, 0))
        padding = (rows + 1) // 2, (columns + 1) // 2
        return F.conv2d(features, weight, self.bias, self.stride, padding, groups=self.groups)
