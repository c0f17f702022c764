"""Guided backpropagation (Springenberg et al. 2015, "Striving for simplicity"): what in the image excites a unit.

The gradient of the unit's activation with respect to the image, with one change: at every activation on the way back,
negative gradients are stopped. What is left shows the pixels that, made stronger, would make the unit fire more through
parts that each help. For an activation y = f(x):

    g_x = max(f'(x), 0) * max(g_y, 0)

For ReLU this is Springenberg's rule. For the others f' is theirs; where SiLU, GELU, Mish or Hardswish fall (below about
-1), more input means less output, and the gradient that would turn negative there is stopped too.

Covered are, called as a function, as a tensor's method or by a module, in place or not: relu, relu6, leaky_relu,
prelu, rrelu, elu, selu, celu, gelu, silu, mish, hardswish, hardtanh, tanh, sigmoid, hardsigmoid, logsigmoid, softplus,
softsign, threshold, softshrink, hardshrink and tanhshrink, so every activation module of `torch.nn`; and, as a whole,
every activation module of `timm.layers`, some of which are made of other functions (QuickGELU, HardMish, ...). The
sigmoids of squeeze-and-excitation count. Not covered are softmax and the gated units (GLU), which mix entries: their
gradients pass as they are. (Hooks on nn.ReLU, as captum has them, see none of these but the first, and give plain
gradients without a word.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FUNCTIONS = frozenset(
    "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardtanh tanh sigmoid hardsigmoid "
    "logsigmoid log_sigmoid softplus softsign threshold softshrink hardshrink tanhshrink".split()
)
"""Names of functions of torch and of methods of tensors; those that work in place end in an underscore besides."""

RISING = FUNCTIONS - {"gelu", "silu", "mish", "hardswish"}
"""Those that never fall, so that a positive gradient stays positive."""

HOMES = ("timm.layers.activations", "timm.layers.activations_me", "timm.layers.activations_jit")
"""Where modules come from that are activations as a whole."""


class _Activation(torch.autograd.Function):
    """Any function of each entry by itself, through which only positive gradients pass, and only upwards."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor], rising: bool) -> Tensor:  # noqa: ANN401
        with torch.enable_grad():
            inner = values.detach().requires_grad_()
            outer = function(inner)
        ctx.inner, ctx.outer, ctx.rising = inner, outer, rising
        return outer.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (passed,) = torch.autograd.grad(ctx.outer, ctx.inner, gradients[0].clamp(min=0))
        return passed if ctx.rising else passed.clamp(min=0), None, None


class _Guide(TorchFunctionMode):
    """Replaces every call of an activation function while it is active, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0
        self._inside = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given = kwargs or {}
        called = str(getattr(func, "__name__", ""))
        name = called.rstrip("_")
        if called == "batch_norm" and (affine := _as_affine(*args, **given)) is not None:
            return affine
        if self._inside or name not in FUNCTIONS:
            return func(*args, **given)
        rest = dict(given)
        values = args[0] if args else rest.pop("input")
        if "inplace" in rest:
            rest["inplace"] = False
        # What works in place must not write over what its own gradient needs.
        in_place = called.endswith("_") or any(arg is True for arg in args[1:])
        return self.apply(
            values,
            lambda inner: func(inner.clone() if in_place else inner, *args[1:], **rest),
            rising=name in RISING,
        )

    def apply(self, values: Tensor, function: Callable[[Tensor], Tensor], *, rising: bool = False) -> Tensor:
        """Compute an activation with the guided gradient; the value is the usual one."""
        self.found += 1
        outside, self._inside = self._inside, True
        try:
            return cast(Tensor, _Activation.apply(values, function, rising))
        finally:
            self._inside = outside


def _as_affine(
    values: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Batch normalization with fixed statistics as the scaling that it is, whose gradient takes a fifth of the time."""
    del momentum
    if training or mean is None or variance is None:
        return None
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = -mean * scale + (0 if bias is None else bias)
    shape = (1, -1, *[1] * (values.ndim - 2))
    return values * scale.reshape(shape) + shift.reshape(shape)


@contextlib.contextmanager
def guided(model: nn.Module) -> Iterator[_Guide]:
    """Within the block, gradients through the activations of `model` are guided; its values are what they ever are.

    Args:
        model: Run it inside the block. Backward may follow inside or after it.

    Yields:
        An object whose `found` counts the activations that were passed; 0 means that gradients are plain ones.
    """
    guide = _Guide()
    modules = [module for module in model.modules() if type(module).__module__ in HOMES]

    def whole(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda values, *rest: guide.apply(values, lambda inner: forward(inner.clone(), *rest))

    try:
        for module in modules:
            module.__dict__["forward"] = whole(module.forward)
        with guide:
            yield guide
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


def project(network: nn.Module, images: Tensor, pick: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor, int]:
    """The guided gradient of one value an image with respect to the image.

    Args:
        network: In eval mode, so that images don't influence each other; images to anything.
        images: float32 [B, C, H, W], normalized.
        pick: From what the network gives, one value an image: float [B].

    Returns:
        The gradient float32 [B, C, H, W]; the values [B]; and how many activations there were on the way.
    """
    with torch.enable_grad(), guided(network) as guide:
        leaves = images.detach().requires_grad_()
        values = pick(network(leaves))
        (gradient,) = torch.autograd.grad(values.sum(), leaves)
    return gradient, values.detach(), guide.found
