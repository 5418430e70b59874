"""FullGrad."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from methods._base import Backbone, Explainer, normalise, target_logits


class FullGrad(Explainer):
    """FullGrad: input times gradient, and bias times gradient at every layer with a bias.

    Every channel is taken by magnitude, min-max normalised and resized bilinearly, then all are
    added (the paper's post-processing). Layers are convolutions and batch norms, as in
    pytorch-grad-cam, subclasses such as timm's included, which that library leaves out. The input
    is the normalised image, channel by channel. Where a network cuts the image into windows that it
    takes for images, what a layer does has no place in the image: such a network is refused.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = FullGrad(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "FullGrad"
    paper = "Srinivas & Fleuret 2019, NeurIPS, arXiv 1905.00780"
    cost = "1 forward, 1 backward"
    kind = "CAM"
    families = frozenset({"cnn"})

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        named = dict(backbone.network.named_modules())
        self._layers = {name: m for name, m in named.items() if bias(m) is not None}
        if not self._layers:
            raise ValueError(
                f"FullGrad needs a bias: {backbone.name!r} has none in its convolutions and batch "
                "norms, expected at least one"
            )
        self._refuse_windows()

    def _refuse_windows(self) -> None:
        for name, output in self.backbone.outputs_of_black([*self._layers]).items():
            if len(output) != 1:
                raise ValueError(
                    f"FullGrad cannot place what layer {name!r} of {self.backbone.name!r} does: it "
                    f"gives {len(output)} outputs for one image, expected one"
                )

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        inputs = images.detach().clone().requires_grad_()
        ran: list[tuple[nn.Module, Tensor]] = []
        handles: list[RemovableHandle] = []

        def keep(module: nn.Module, output: Tensor) -> Tensor:
            own = output if output.requires_grad else output.detach().requires_grad_()
            own = own.expand(len(images), *own.shape[1:])  # one for all, of what is no image
            ran.append((module, own))
            return own.clone()  # what follows may work in place

        try:
            handles.extend(hook_bias(module, keep) for module in self._layers.values())
            with torch.enable_grad():
                logits = self.backbone(inputs)
                score = target_logits(logits, targets).sum()
                wanted = [inputs, *(output for _, output in ran)]
                own, *others = torch.autograd.grad(score, wanted, materialize_grads=True)
        finally:
            for handle in handles:
                handle.remove()
        total = channels(own * (images - self.backbone.mean), images.shape[2:])
        for (module, _), gradient in zip(ran, others, strict=True):
            offset = bias(module)
            assert offset is not None
            total += channels(gradient * offset[:, None, None], images.shape[2:])
        return normalise(total)


def bias(module: nn.Module) -> Tensor | None:
    """What a convolution or a batch norm (in eval mode) adds to each channel (C,), if anything."""
    if isinstance(module, nn.Conv2d):
        return module.bias
    if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
        assert module.running_var is not None
        scale = (module.running_var + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight
        shift = -module.running_mean * scale
        return shift if module.bias is None else shift + module.bias
    return None


def hook_bias(module: nn.Module, change: Callable[[nn.Module, Tensor], Tensor]) -> RemovableHandle:
    """What follows where a module has added its bias gets `change(module, sum)` instead.

    That is its output, but in a batch norm with an activation of its own, such as timm's, what
    the first module inside it is given.
    """
    inside = next(module.children(), None) if isinstance(module, nn.BatchNorm2d) else None
    if inside is None:
        return module.register_forward_hook(lambda own, _inputs, output: change(own, output))
    return inside.register_forward_pre_hook(lambda _own, inputs: (change(module, inputs[0]),))


def channels(evidence: Tensor, size: torch.Size) -> Tensor:
    """The sum (B, H, W) over the normalised magnitudes of the channels of (B, C, h, w)."""
    maps = normalise(evidence.detach().abs().float().flatten(0, 1)).unflatten(0, evidence.shape[:2])
    summed = maps.sum(dim=1, keepdim=True)  # resizing is linear: once for all channels
    return nn.functional.interpolate(summed, size=size, mode="bilinear", align_corners=False)[:, 0]
