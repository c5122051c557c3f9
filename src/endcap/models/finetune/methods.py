"""How much of a model learns: everything, the head alone, or a small addition that is kept apart from the base.

LoRA (Hu et al. 2022), AdaLoRA (Zhang et al. 2023), prefix tuning (Li & Liang 2021) and IA3 (Liu et al. 2022) come from
`peft`; bottleneck adapters are ours.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from endcap.core.errors import CallerError, MissingExtraError
from endcap.models.finetune.adapters import FEED_FORWARDS, PROJECTIONS, insert_adapters
from endcap.models.finetune.backbone import Backbone, blocks_of
from endcap.models.finetune.config import MethodConfig
from endcap.models.finetune.heads import product

FOLDED = ("lora", "adalora", "ia3")
APART = ("prefix", "adapter")  # what they learn cannot become part of the model's own weights
ADAPTER = "default"  # peft's name for the one there is
ORTHOGONAL = 0.5
ADALORA_WARMUP, ADALORA_SETTLED = 0.1, 0.6  # shares of the run between which ranks are taken away


def apply_method(backbone: Backbone, config: MethodConfig, steps: int) -> None:
    """In place. steps: of the whole run, by which AdaLoRA plans."""
    body, backbone.method = backbone.body, config.kind
    read_as_tuned(backbone)
    if config.kind == "full":
        return
    if config.kind == "adapter":
        insert_adapters(body, backbone.dim, config.width)
        return
    for parameter in body.parameters():
        parameter.requires_grad_(False)
    if config.kind != "frozen":
        backbone.body = _peft(body, config, steps)
    if config.kind == "adalora":
        backbone.rank_memory = RankMemory(backbone.body)


def read_as_tuned(backbone: Backbone) -> None:
    """Prefix tuning reads no kinds of tokens, which tell two texts apart; given some, `peft` warns each time."""
    if backbone.method == "prefix":
        names = backbone.tokeniser.model_input_names
        backbone.tokeniser.model_input_names = [name for name in names if name != "token_type_ids"]


def allot_rank(backbone: Backbone, step: int) -> None:
    """To be called after every step of the optimiser: AdaLoRA gives rank to the layers that use it."""
    if backbone.method == "adalora":
        memory: Any = backbone.rank_memory
        memory.allot(backbone.body, step)


class RankMemory(nn.Module):
    """AdaLoRA's running means of how much the loss feels each weight and of how that varies (Zhang et al. 2023, section
    3.2), and which ranks it kept: buffers, so that a checkpoint holds them and a run that goes on allots as it would
    have."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        for number, (_, factor) in enumerate(_factors(body)):
            self.register_buffer(f"felt_{number}", torch.zeros_like(factor))
            self.register_buffer(f"varies_{number}", torch.zeros_like(factor))
            self.register_buffer(f"kept_{number}", torch.ones(len(factor), dtype=torch.bool))

    def allot(self, body: Any, step: int) -> None:
        tuner, factors = body.base_model, list(enumerate(_factors(body)))
        plan, allocator = tuner.peft_config[ADAPTER], tuner.rankallocator
        for number, (name, factor) in factors:
            allocator.ipt.setdefault(name, torch.zeros_like(factor))
            allocator.exp_avg_ipt[name] = self.get_buffer(f"felt_{number}")
            allocator.exp_avg_unc[name] = self.get_buffer(f"varies_{number}")
        plan.rank_pattern = {
            name: self.get_buffer(f"kept_{number}").tolist() for number, (name, _) in factors if "lora_E." in name
        }
        tuner.update_and_allocate(step)
        for number, (name, _) in factors:
            if name in allocator.exp_avg_ipt:
                self.get_buffer(f"felt_{number}").copy_(allocator.exp_avg_ipt[name])
                self.get_buffer(f"varies_{number}").copy_(allocator.exp_avg_unc[name])
            if name in plan.rank_pattern:
                self.get_buffer(f"kept_{number}").copy_(torch.tensor(plan.rank_pattern[name]))


def penalty(backbone: Backbone) -> Tensor | float:
    """AdaLoRA's: its factors should stay orthogonal (Zhang et al. 2023, equation 4), 0 for other methods."""
    if backbone.method != "adalora":
        return 0.0
    named = [(name, factor) for name, factor in _factors(backbone.body) if "lora_E." not in name]
    factors = [factor if "lora_A." in name else factor.T for name, factor in named]
    gaps = [product(factor, factor.T) - torch.eye(len(factor), device=factor.device) for factor in factors]
    return ORTHOGONAL * torch.stack([gap.square().sum().sqrt() for gap in gaps]).mean()


def merged(backbone: Backbone) -> nn.Module | None:
    """The body with what was learned folded into its weights; None where the method cannot be folded in."""
    body: Any = backbone.body
    if backbone.method in FOLDED:
        plain: nn.Module = body.merge_and_unload()
        return plain
    return None if backbone.method in APART else backbone.body


def shares(model: nn.Module) -> tuple[int, int]:
    """(parameters that learn, parameters in all)."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, learns in counts if learns), sum(count for count, _ in counts)


def _factors(body: Any) -> list[tuple[str, nn.Parameter]]:
    """AdaLoRA's triplets, by the names that its allocator knows them by."""
    return [(name, factor) for name, factor in body.base_model.model.named_parameters() if "lora_" in name]


def _peft(body: nn.Module, config: MethodConfig, steps: int) -> nn.Module:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "finetune") from error
    task = peft.TaskType.FEATURE_EXTRACTION
    turned = {"fan_in_fan_out": any(_is_conv1d(module) for module in body.modules())}
    low_rank = {"lora_alpha": config.alpha, "lora_dropout": config.dropout, "target_modules": _targets(body, config)}
    low_rank |= turned
    match config.kind:
        case "lora":
            settings = peft.LoraConfig(task_type=task, r=config.rank, **low_rank)
        case "adalora":
            settings = peft.AdaLoraConfig(
                task_type=task,
                init_r=config.rank + max(1, config.rank // 2),
                target_r=config.rank,
                tinit=int(ADALORA_WARMUP * steps),
                tfinal=steps - int(ADALORA_SETTLED * steps),
                deltaT=max(1, steps // 100),
                total_step=max(steps, 3),
                **low_rank,
            )
        case "prefix":
            settings = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=config.length)
        case "ia3":
            settings = peft.IA3Config(task_type=task, **_ia3_targets(body, config), **turned)
        case _:
            raise CallerError(f"There is no method {config.kind!r}.", where="method.kind")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of names that peft still calls transformers' parts by
        wrapped: nn.Module = peft.get_peft_model(body, settings)
    return wrapped


def _targets(body: nn.Module, config: MethodConfig) -> list[str]:
    """Every projection of the layers, which learns best at a given number of parameters (Dettmers et al. 2023)."""
    if config.targets:
        return list(config.targets)
    path, blocks = blocks_of(body)
    linear = {name for name, module in blocks[0].named_modules() if isinstance(module, nn.Linear) or _is_conv1d(module)}
    return [f"{path}.{place}.{name}" for place in range(len(blocks)) for name in sorted(linear)]


def _ia3_targets(body: nn.Module, config: MethodConfig) -> dict[str, Any]:
    """Keys, values and what goes into the feed-forward's second layer, as in the paper (section 3.3)."""
    if config.targets:
        return {"target_modules": list(config.targets), "feedforward_modules": []}
    path, blocks = blocks_of(body)
    names = {name for name, module in blocks[0].named_modules() if isinstance(module, nn.Linear) or _is_conv1d(module)}
    ends = ("key", "value", "k_lin", "v_lin", "k_proj", "v_proj", "c_attn")
    attention = sorted(name for name in names if name.endswith(ends))
    forward = sorted(name for name in names if name.endswith(FEED_FORWARDS) and not name.endswith(PROJECTIONS))
    if not attention or not forward:
        raise CallerError(
            "IA3 does not know this model's layers.",
            where=type(body).__name__,
            next_step="Name them in `method.targets`.",
        )
    whole = {name: [f"{path}.{place}.{name}" for place in range(len(blocks))] for name in (*attention, *forward)}
    return {
        "target_modules": [target for targets in whole.values() for target in targets],
        "feedforward_modules": [target for name in forward for target in whole[name]],
    }


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layers, whose weights are turned: [in, out]."""
    return type(module).__name__ == "Conv1D"
