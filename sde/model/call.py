"""The call of a network: its dtype and device, what is compiled of it, and derivatives that it loses."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.parallel import DistributedDataParallel

from sde.condition.tree import Condition
from sde.device import differentiating_forward, send
from sde.process.coefficients import expand
from sde.process.level import Coefficient


def call_network(
    network: nn.Module,
    x: Tensor,
    c_in: Coefficient,
    c_noise: Coefficient,
    *cond: Condition | None,
    autocast: torch.dtype | None,
) -> Tensor:
    """F(c_in x, c_noise, cond), in the dtype of x; c_in and c_noise are floats, or of shape () or (B,).

    Only the network's body runs under autocast, and only it is worth compiling. Where x is differentiated, a compiled
    network is asked as it was before: a compiled graph has one backward pass, which cannot be taken again, and no
    derivatives in forward mode. With those it runs in full precision on the CPU, where torch's normalizations under
    autocast leave a derivative in another dtype than its value.
    """
    forward = differentiating_forward()
    differentiated = (torch.is_grad_enabled() and x.requires_grad) or forward
    if forward and x.device.type == "cpu":
        autocast = None
    call = uncompiled(network) if differentiated else network
    if isinstance(c_noise, float):
        # Without a transfer, which would wait for the device.
        c_noise = x.new_full((x.shape[0],), c_noise)
    else:
        c_noise = send(c_noise.to(x.dtype), x.device)
        c_noise = c_noise.expand(x.shape[0]) if c_noise.ndim == 0 else c_noise
    with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
        try:
            output = call(expand(c_in, x) * x, c_noise, *cond)
        except RuntimeError as error:
            own = next(network.parameters(), x)
            if autocast is None and (own.dtype, own.device) != (x.dtype, x.device):
                raise ValueError(
                    f"x is {x.dtype} on {x.device}, the network {own.dtype} on {own.device}: "
                    "bring one to the other with .to"
                ) from error
            raise
    if not isinstance(output, Tensor):
        inside = f" of {', '.join(type(o).__name__ for o in output)}" if isinstance(output, tuple | list) else ""
        raise TypeError(
            f"the network returned a {type(output).__name__}{inside} for x of shape {tuple(x.shape)}: it must return "
            "one tensor; wrap a network that returns more"
        )
    if _lost_forward(x, output):
        raise ValueError(
            "the network's output has no derivative in forward mode, which losses of average velocities ask for: leave "
            "out detach, compiled parts and conversions to other libraries in its forward"
        )
    if torch.is_grad_enabled() and x.requires_grad and not output.requires_grad:
        _check_constant(call, expand(c_in, x) * x.detach(), c_noise, cond, output)
    return output.to(x.dtype)


def _lost_forward(x: Tensor, output: Tensor) -> bool:
    """Whether x has a derivative in forward mode and the output none."""
    if not differentiating_forward():
        return False
    return forward_ad.unpack_dual(x).tangent is not None and forward_ad.unpack_dual(output).tangent is None


@torch.no_grad()
def _check_constant(
    call: Callable[..., Any], x: Tensor, c_noise: Tensor, cond: Sequence[Condition | None], output: Tensor
) -> None:
    """Raise ValueError where the output of a network without a gradient depends on x all the same."""
    if not torch.equal(call(1.1 * x + 0.1, c_noise, *cond), output):
        raise ValueError(
            "the network's output depends on x, but has no gradient by it, and likelihood or guidance ask for one: "
            "leave out no_grad, inference_mode and detach in its forward"
        )


def uncompiled(network: nn.Module) -> Callable[..., Any]:
    """A network as it was before ``torch.compile(network)`` or ``network.compile()``; another one itself."""
    network = getattr(network, "_orig_mod", network)
    if isinstance(network, DistributedDataParallel):
        return partial(_replica_uncompiled, network)
    return network if getattr(network, "_compiled_call_impl", None) is None else network._call_impl


def _replica_uncompiled(replica: DistributedDataParallel, *inputs: Any) -> Any:
    """What a replica of a network returns, which averages its gradients all the same."""
    network = replica.module
    held = getattr(network, "_compiled_call_impl", None)
    network._compiled_call_impl = None
    try:
        return replica(*inputs)
    finally:
        network._compiled_call_impl = held
