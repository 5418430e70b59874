"""What guided backpropagation, deconvolution and DeepLIFT share: another gradient at every ReLU.

Captum's versions see modules of the class nn.ReLU, each once. Here every call counts: of a module,
of one that is called several times, of a function, of ReLU6.
"""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from methods._base import Backbone, Explainer, normalise, refuse_unless_one_of, target_logits

Rule = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""From a ReLU and its inputs to its values, with another gradient; the inputs are left alone."""

Pooling = Callable[..., Tensor]
"""From the inputs of a max pooling and its other arguments to its values, with another gradient."""

Sign = Literal["magnitude", "positive"]
"""How a signed gradient becomes a map: its magnitude, or its positive part."""

RECTIFIERS: set[Callable[..., Tensor]] = {
    *(F.relu, F.relu_, F.relu6, F.hardtanh, F.hardtanh_),
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
}
"""Every way to call a ReLU; hardtanh from 0 on is how torch computes ReLU6."""

OTHERS: set[Callable[..., Any]] = {
    *(F.gelu, F.silu, F.mish, F.elu, F.elu_, F.celu, F.selu, F.leaky_relu, F.leaky_relu_, F.prelu),
    *(F.rrelu, F.hardswish, F.hardsigmoid, F.softplus, F.sigmoid, F.tanh, F.glu, F.logsigmoid),
    *(torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_),
    *(torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
    *(F.softmax, torch.softmax, Tensor.softmax, F.scaled_dot_product_attention),
    *(torch.celu, torch.celu_, torch.selu, torch.selu_, torch.rrelu, torch.rrelu_, torch.prelu),
    *(F.threshold, torch.threshold_, torch.threshold, F.softsign, F.tanhshrink, F.hardshrink),
    *(torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, Tensor.clamp_min, Tensor.clamp_max),
    *(torch.clip, Tensor.clip, torch.pow, Tensor.pow, torch.square, Tensor.square, Tensor.__pow__),
    *(torch.where, Tensor.where, torch.maximum, torch.minimum, torch.exp, Tensor.exp),
}
"""Functions that are not linear, for which these methods say nothing. A product of two features is
not seen, nor what is compiled or computed by a function of one's own."""


WITHOUT_RULE: set[Callable[..., Any]] = {
    *(F.max_pool1d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
    *(F.layer_norm, F.group_norm, F.instance_norm, F.local_response_norm),
}
"""Other ways to pool by the maximum, and what normalises by the image itself: not linear."""


class RectifiedGradient(Explainer):
    """The gradient of the logit at the pixels, its largest value among the channels.

    A subclass says in `rectify` what a ReLU is, forward and backward.

    Args:
        backbone: a CNN whose only activations are ReLU and ReLU6.
        sign: `magnitude`, or the `positive` part.

    Raises:
        ValueError: the backbone calls another activation, or no ReLU.
    """

    cost = "1 forward, 1 backward"
    kind = "gradient"
    families = frozenset({"cnn"})

    def __init__(self, backbone: Backbone, *, sign: Sign = "magnitude") -> None:
        super().__init__(backbone)
        refuse_unless_one_of("sign", sign, Sign)
        self._sign = sign
        refuse_unless_defined(backbone, self.rectify)

    @staticmethod
    @abstractmethod
    def rectify(relu: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """See Rule."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        pixels = images.detach().clone().requires_grad_()
        with torch.enable_grad(), Replaced(self.backbone, self.rectify):
            logits = self.backbone(pixels)
        (gradients,) = torch.autograd.grad(target_logits(logits, targets).sum(), pixels)
        return normalise(unsigned(gradients, self._sign).amax(dim=1).float())


def unsigned(values: Tensor, sign: Sign) -> Tensor:
    """Evidence of any sign as evidence that is not negative, see `Sign`."""
    return values.abs() if sign == "magnitude" else values.clamp(min=0)


class Replaced(TorchFunctionMode):
    """Within the block a backbone's ReLUs follow a rule, and other activations are refused.

    Args:
        backbone: whose name is in messages.
        rectify: the rule of every ReLU.
        pool: that of max pooling; without, it is left as it is.

    Raises:
        ValueError: another activation is called, or with `pool` what has no rule besides.
    """

    def __init__(self, backbone: Backbone, rectify: Rule, pool: Pooling | None = None) -> None:
        super().__init__()
        self._name, self._rectify, self._pool = backbone.name, rectify, pool
        self.calls = 0
        """Of ReLUs so far."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What is called instead of a function of torch."""
        kwargs = kwargs or {}
        bounded = func in (F.hardtanh, F.hardtanh_)
        from_zero = not bounded or (args[1:2] or (kwargs.get("min_val", -1.0),))[0] == 0
        unknown = self._pool is not None and func in WITHOUT_RULE
        if func in OTHERS or not from_zero or unknown:
            beside = ", batch norm and max_pool2d" if self._pool is not None else ""
            raise ValueError(
                f"backbone {self._name!r} calls {func.__name__}: expected ReLU and ReLU6 alone as "
                f"activations{beside}; put this explainer into the backbone's `skip`"
            )
        if func is F.max_pool2d and self._pool is not None:
            return self._pool(*args, **kwargs)
        if func not in RECTIFIERS:
            return func(*args, **kwargs)
        self.calls += 1
        given = inspect.signature(F.hardtanh if bounded else F.relu).bind(*args, **kwargs).arguments
        inputs, in_place = given.pop("input"), given.pop("inplace", func.__name__.endswith("_"))
        own = F.hardtanh if bounded else F.relu6 if func is F.relu6 else F.relu
        if not in_place:
            return self._rectify(lambda x: own(x, **given), inputs)
        return inputs.copy_(self._rectify(lambda x: own(x, **given), inputs.clone()))


def refuse_unless_defined(backbone: Backbone, rectify: Rule, pool: Pooling | None = None) -> None:
    """Refuse a backbone that calls what has no rule, or no ReLU that could be seen.

    Raises:
        ValueError: names the backbone, and what it calls.
    """
    with Replaced(backbone, rectify, pool) as replaced:
        backbone.outputs_of_black([])
    if not replaced.calls:
        raise ValueError(
            f"backbone {backbone.name!r} calls no ReLU that can be seen: expected some, in a "
            "network that is not compiled; put this explainer into the backbone's `skip`"
        )


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
