"""What training needs to know of its processes. With one process, everything here does nothing.

Several are started by `torchrun`; the model's parameters are then sharded over them (FSDP2, `fully_shard`), each
process reads its own part of every batch, and all of them decide alike. A checkpoint holds a process's own shards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def join() -> None:
    """Meet the other processes, if `torchrun` started several: by NCCL between GPUs, by gloo for what CPUs hold."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def shard(model: nn.Module, blocks: list[nn.Module]) -> None:
    """Spread the parameters over the processes, a block at a time, and the rest of the model after them."""
    if processes() > 1:
        for block in blocks:
            fully_shard(block)
        fully_shard(model)


def any_of(flag: bool) -> bool:
    """Whether it is so in any process."""
    if processes() == 1:
        return flag
    told = torch.tensor(int(flag))
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told.item())


def same(number: int) -> bool:
    """Whether it is the same number in every process."""
    if processes() == 1:
        return True
    told = torch.tensor([number, -number])
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told[0] == -told[1])


def as_first(text: str) -> str:
    """What the first process says, in all of them."""
    if processes() == 1:
        return text
    said = torch.tensor(list(text.encode()), dtype=torch.uint8)
    length = torch.tensor(len(said))
    dist.broadcast(length, src=0)
    if rank():
        said = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(said, src=0)
    return bytes(said.tolist()).decode()


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What training may change: the state dict without frozen parameters."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def held(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This process's shards, themselves."""
    return {name: local(tensor).detach() for name, tensor in weights.items()}


def copy_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This process's shards, as they are now."""
    return {name: tensor.clone() for name, tensor in held(weights).items()}


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set what `copy_of(trained(model))` once held."""
    with torch.no_grad():
        for name, tensor in trained(model).items():
            local(tensor).copy_(weights[name])


def whole(model: nn.Module) -> dict[str, Tensor]:
    """The full state dict, gathered onto the CPU of the first process (the others get an empty one)."""
    if processes() == 1:
        return dict(model.state_dict())
    found = {}
    for name, tensor in model.state_dict().items():
        full = _gathered(tensor) if isinstance(tensor, DTensor) else tensor
        if rank() == 0:
            found[name] = full.cpu()
    dist.barrier()  # one that left before the first had read everything would cut it off
    return found


def _gathered(tensor: DTensor) -> Tensor:
    """Of shards by rows, in as many rows each as `torch.chunk` gives them; the last ones may have fewer, or none."""
    mine = tensor.to_local().detach()
    padded = mine.new_zeros(-(-tensor.shape[0] // processes()), *tensor.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(processes())]
    dist.all_gather(parts, padded)
    return torch.cat(parts)[: tensor.shape[0]]


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(shard_of: Tensor, parameter: Tensor) -> Tensor:
    """A shard as part of a tensor that is spread as the parameter is."""
    if isinstance(parameter, DTensor) and shard_of.ndim:
        shape, stride = parameter.size(), parameter.stride()
        return DTensor.from_local(shard_of, parameter.device_mesh, parameter.placements, shape=shape, stride=stride)
    return shard_of
