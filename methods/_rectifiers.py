"""What guided backpropagation and deconvolution share: another gradient at every ReLU.

Captum's versions see modules of the class nn.ReLU, each once. Here every call counts: of a module,
of one that is called several times, of a function, of ReLU6.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from methods._base import Backbone, Explainer, normalise, refuse_unless_one_of

Rectifier = Callable[..., Tensor]

Sign = Literal["magnitude", "positive"]
"""How a signed gradient becomes a map: its magnitude, or its positive part."""

RECTIFIERS: set[Rectifier] = {
    *(F.relu, F.relu_, F.relu6, F.hardtanh, F.hardtanh_),
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
}
"""Every way to call a ReLU; hardtanh from 0 on is how torch computes ReLU6."""

OTHERS: set[Callable[..., Any]] = {
    *(F.gelu, F.silu, F.mish, F.elu, F.elu_, F.celu, F.selu, F.leaky_relu, F.leaky_relu_, F.prelu),
    *(F.rrelu, F.hardswish, F.hardsigmoid, F.softplus, F.sigmoid, F.tanh, F.glu, F.logsigmoid),
    *(torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_),
    *(torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
}
"""Activations for which these methods say nothing."""


class RectifiedGradient(Explainer):
    """The gradient of the logit at the pixels, its largest value among the channels.

    A subclass says in `rectify` what a ReLU is, forward and backward.

    Args:
        backbone: a CNN whose only activations are ReLU and ReLU6.
        sign: `magnitude`, or the `positive` part.

    Raises:
        ValueError: the backbone has another activation.
    """

    cost = "1 forward, 1 backward"
    kind = "gradient"
    families = frozenset({"cnn"})

    def __init__(self, backbone: Backbone, *, sign: Sign = "magnitude") -> None:
        super().__init__(backbone)
        refuse_unless_one_of("sign", sign, Sign)
        self._sign = sign
        with _Replaced(backbone.name, self.rectify):
            backbone.outputs_of_black([])

    @staticmethod
    @abstractmethod
    def rectify(relu: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """The values of `relu(inputs)`, with the method's gradient; `inputs` are left alone."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        pixels = images.detach().clone().requires_grad_()
        with torch.enable_grad(), _Replaced(self.backbone.name, self.rectify):
            logits = self.backbone(pixels)
        (gradients,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), pixels)
        found = gradients.abs() if self._sign == "magnitude" else gradients.clamp(min=0)
        return normalise(found.amax(dim=1).float())


class _Replaced(TorchFunctionMode):
    """Within the block every ReLU is computed by `rectify`, and other activations are refused."""

    def __init__(
        self, name: str, rectify: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
    ) -> None:
        super().__init__()
        self._name, self._rectify = name, rectify

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        bounded = func in (F.hardtanh, F.hardtanh_)
        from_zero = not bounded or (args[1:2] or (kwargs.get("min_val", -1.0),))[0] == 0
        if func in OTHERS or not from_zero:
            raise ValueError(
                f"backbone {self._name!r} has the activation {func.__name__}: expected ReLU and "
                "ReLU6 alone, for which this method is defined"
            )
        if func not in RECTIFIERS:
            return func(*args, **kwargs)
        rest = {name: value for name, value in kwargs.items() if name != "inplace"}
        inputs, *bounds = args[:3] if bounded else args[:1]
        own = F.hardtanh if bounded else F.relu6 if func is F.relu6 else F.relu
        return self._rectify(lambda x: own(x, *bounds, **rest), inputs)


class Positive(torch.autograd.Function):
    """Values, of whose gradient a source gets the positive part."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, values: Tensor) -> Tensor:
        """The values."""
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """For the source, without what is negative."""
        return gradients[0].clamp(min=0), None
