"""Guided backpropagation (Springenberg et al. 2015, "Striving for simplicity"): which pixels activate a unit.

It computes the gradient of a unit's activation with respect to the image, but stops negative gradients at every
activation function on the backward pass. The result shows the pixels that would increase the unit's activation through
paths whose every step contributes positively. For an activation function y = f(x):

    g_x = max(f'(x), 0) * max(g_y, 0)

For ReLU, this is Springenberg's rule. For others, f' is their own derivative. Where SiLU, GELU, Mish or Hardswish
decrease (below about -1), the gradient would change its sign and is stopped, too.

These functions are guided, whether called as a function, a tensor method or a module, in place or not: relu, relu6,
leaky_relu, prelu, rrelu, elu, selu, celu, gelu, silu, mish, hardswish, hardtanh, tanh, sigmoid, hardsigmoid,
logsigmoid, softplus, softsign, threshold, softshrink, hardshrink and tanhshrink, which covers every activation module
of `torch.nn`. Every activation module of `timm.layers` is guided as a whole, including those composed of other
functions (QuickGELU, HardMish, ...). The sigmoids of squeeze-and-excitation are guided, too. Softmax and gated units
(GLU) mix entries and are not: gradients pass through them unchanged. (captum hooks `nn.ReLU` only, so it silently
returns plain gradients for all other activation functions.)
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

FUNCTIONS = frozenset(
    "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardtanh tanh sigmoid hardsigmoid "
    "logsigmoid log_sigmoid softplus softsign threshold softshrink hardshrink tanhshrink".split()
)
"""Names of torch functions and tensor methods; the in-place variants end in an underscore."""

MONOTONIC = FUNCTIONS - {"gelu", "silu", "mish", "hardswish"}
"""Functions that never decrease, so that a positive gradient stays positive."""

BATCH_NORM = inspect.signature(functional.batch_norm)

ACTIVATION_MODULES = ("timm.layers.activations", "timm.layers.activations_me", "timm.layers.activations_jit")
"""Python modules whose `nn.Module` classes are guided as a whole."""


class _GuidedActivation(torch.autograd.Function):
    """An elementwise function that passes only positive gradients, and only where it does not decrease."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor], monotonic: bool) -> Tensor:  # noqa: ANN401
        with torch.enable_grad():
            inner = values.detach().requires_grad_()
            outer = function(inner)
        ctx.inner, ctx.outer, ctx.monotonic = inner, outer, monotonic
        return outer.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (passed,) = torch.autograd.grad(ctx.outer, ctx.inner, gradients[0].clamp(min=0))
        return passed if ctx.monotonic else passed.clamp(min=0), None, None


class _GuidedMode(TorchFunctionMode):
    """Replaces every call of an activation function by its guided version, and counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._active = False

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
        if called == "batch_norm" and (affine := _as_affine(BATCH_NORM.bind(*args, **given))) is not None:
            return affine
        if self._active or name not in FUNCTIONS:
            return func(*args, **given)
        rest = dict(given)
        values = args[0] if args else rest.pop("input")
        if "inplace" in rest:
            rest["inplace"] = False
        # An in-place function must not overwrite the values that its gradient needs.
        in_place = called.endswith("_") or any(arg is True for arg in args[1:])
        return self.apply(
            values,
            lambda inner: func(inner.clone() if in_place else inner, *args[1:], **rest),
            monotonic=name in MONOTONIC,
        )

    def apply(self, values: Tensor, function: Callable[[Tensor], Tensor], *, monotonic: bool = False) -> Tensor:
        """Compute an activation function with a guided gradient; its value is unchanged."""
        self.count += 1
        previous, self._active = self._active, True
        try:
            return cast(Tensor, _GuidedActivation.apply(values, function, monotonic))
        finally:
            self._active = previous


def _as_affine(call: inspect.BoundArguments) -> Tensor | None:
    """Compute batch normalization with fixed statistics as scale and shift, whose gradient takes a fifth of the time.

    Args:
        call: The arguments of `torch.nn.functional.batch_norm`.

    Returns:
        None if the statistics are not fixed.
    """
    call.apply_defaults()
    arguments = call.arguments
    values, mean, variance = (arguments[name] for name in ("input", "running_mean", "running_var"))
    if arguments["training"] or mean is None or variance is None:
        return None
    weight, bias = arguments["weight"], arguments["bias"]
    scale = (variance + arguments["eps"]).rsqrt() * (1 if weight is None else weight)
    shift = -mean * scale + (0 if bias is None else bias)
    shape = (1, -1, *[1] * (values.ndim - 2))
    return cast(Tensor, values * scale.reshape(shape) + shift.reshape(shape))


@contextlib.contextmanager
def guided(model: nn.Module) -> Iterator[_GuidedMode]:
    """Guide the gradients through the activation functions of `model` within the block; its outputs are unchanged.

    Args:
        model: Run its forward pass inside the block. The backward pass may follow inside or after it.

    Yields:
        An object whose `count` is the number of guided calls so far; if it is 0, gradients are plain.
    """
    mode = _GuidedMode()
    modules = [module for module in model.modules() if type(module).__module__ in ACTIVATION_MODULES]

    def guided_forward(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda values, *rest: mode.apply(values, lambda inner: forward(inner.clone(), *rest))

    try:
        for module in modules:
            module.__dict__["forward"] = guided_forward(module.forward)
        with mode:
            yield mode
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


def guided_gradients(network: nn.Module, images: Tensor, pick: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor, int]:
    """Compute the guided gradient of one value per image with respect to the image.

    Args:
        network: A network in eval mode, so that images do not influence each other.
        images: float32 [B, C, H, W], normalized.
        pick: Selects one value per image, float [B], from the network's output.

    Returns:
        The gradient, float32 [B, C, H, W]; the values, float [B]; and the number of guided activation functions.
    """
    with torch.enable_grad(), guided(network) as mode:
        leaves = images.detach().requires_grad_()
        values = pick(network(leaves))
        (gradient,) = torch.autograd.grad(values.sum(), leaves)
    return gradient, values.detach(), mode.count
