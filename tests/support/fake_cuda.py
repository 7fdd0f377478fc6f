"""A fake GPU: tensors on "cuda" that compute on the processor and refuse what a GPU refuses.

    with FakeCuda():
        torch.zeros(3, device="cuda") + torch.zeros(3)  # RuntimeError, as two devices are mixed

Their values are right, so whole videos can be made on it and compared.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, DEVICE = torch.device("cpu"), torch.device("cuda", 0)
_MIXING = {"copy_", "to", "_to_copy", "set_", "index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that may mix devices; for indexing, only the indices may be on the processor."""


class FakeCudaTensor(torch.Tensor):
    """A tensor on the fake device; `inner` holds its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> FakeCudaTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self) -> str:
        return f"FakeCudaTensor({self.inner!r})"


class FakeCuda(TorchDispatchMode):
    """A context in which the device "cuda" exists."""

    def __init__(self) -> None:
        super().__init__()
        torch._C._ensureCUDADeviceGuardSet()
        self._before = torch.cuda._lazy_init, torch.__future__.get_overwrite_module_params_on_conversion()

    def __enter__(self) -> FakeCuda:
        if not torch.cuda.is_available():  # otherwise torch looks for a driver first
            torch.cuda._lazy_init = lambda: None
            torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # Module.to changes the class of parameters
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.cuda._lazy_init = self._before[0]
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(self._before[1])
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.split("::")[1]
    if name == "_fused_sdp_choice":
        return 0  # attention as plain products: fused kernels exist for real devices only
    if name == "_has_compatible_shallow_copy_type":
        return False
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_cuda = [leaf for leaf in tensors if isinstance(leaf, FakeCudaTensor)]
    on_cpu = [
        leaf for leaf in tensors if not isinstance(leaf, FakeCudaTensor) and leaf.ndim and leaf.device.type == "cpu"
    ]
    if on_cuda and on_cpu and (name not in _MIXING or ("index" in name and not isinstance(args[0], FakeCudaTensor))):
        shapes = [tuple(each.shape) for each in on_cpu]
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device, but tensors of {shapes} are on the cpu."
        )
    named = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | kwargs
    device = named["other"].device if name == "to" and "other" in named else named.get("device")
    to_cuda = bool(on_cuda) if device is None else torch.device(device).type == DEVICE.type
    generator = kwargs.get("generator")
    if to_cuda and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{name}: expected a 'cuda' device type for generator but found 'cpu'.")
    if name == "copy_":
        to_cuda = isinstance(args[0], FakeCudaTensor)
    if to_cuda:
        args, kwargs = tree_map(lambda leaf: CPU if isinstance(leaf, torch.device) else leaf, (args, kwargs))
    wrappers = {id(leaf.inner): leaf for leaf in on_cuda}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, FakeCudaTensor):
            return value
        if value.dtype == torch.float64:
            raise TypeError(f"{name}: this device has no float64, like Apple's and Intel's.")
        return wrappers[id(value)] if id(value) in wrappers else FakeCudaTensor(value)

    inner = tree_map(lambda leaf: leaf.inner if isinstance(leaf, FakeCudaTensor) else leaf, (args, kwargs))
    result = func(*inner[0], **inner[1])
    return tree_map(wrapped, result) if to_cuda else result
