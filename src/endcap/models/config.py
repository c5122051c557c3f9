"""Config sections of the models that torch trains, apart from them so that reading a config needs no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from endcap.core.section import Section

MEMBERS_APART = 7919


class LoopConfig(Section):
    """How long and how fast to learn."""

    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(
        default=0.01, ge=0, description="AdamW's, on matrices only: not on norms, biases, embeddings"
    )
    epochs: int = Field(default=12, ge=1, description="at most; the learning rate reaches zero at the last")
    warmup_share: float = Field(default=0.05, ge=0, lt=1, description="share of the run with a rising learning rate")
    patience: int = Field(
        default=12,
        ge=1,
        description="epochs without a better metric before stopping; fewer than `epochs` may end it too soon",
    )
    optimiser: Literal["adamw", "sgd", "adafactor"] = Field(
        default="adamw", description="sgd has a momentum of 0.9; adafactor needs the least memory"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="the learning rate after its warm-up"
    )
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are added up before a step")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="of products in training; weights stay float32. float16 scales the loss; auto is bfloat16 where "
        "the machine multiplies it natively",
    )
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay of a running mean of the weights, which is what is kept; 0: none"
    )
    clip_norm: float = Field(default=1.0, gt=0, description="longest gradient, L2 over all parameters")
    max_seconds: float | None = Field(default=None, gt=0, description="stop by then, the learning rate annealed to fit")
    seed: int = Field(default=0, ge=0, description="of weights, batches, dropout and negatives")


class SequenceConfig(LoopConfig):
    """The sequence model and its training. The defaults serve a shop of 10,000 items as well as one of 100,000.

    next_item, masked_item, contrastive: each objective's share in the loss (see `models.sequence_task`).
    """

    dim: int = Field(default=128, ge=8, description="width d of user and item vectors")
    blocks: int = Field(default=1, ge=1, description="transformer blocks")
    heads: int = Field(default=2, ge=1, description="attention heads; divides dim into even parts")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="of embeddings and of each block's output")
    max_len: int = Field(default=50, ge=1, description="newest items read")
    positions: Literal["rotary", "learned"] = Field(default="rotary", description="how order is told")
    batch_size: int = Field(default=128, ge=1, description="windows in a step")
    negatives: int = Field(default=1024, ge=0, description="drawn in a step; 0, or as many as items, means all items")
    sampling: Literal["uniform", "log_uniform", "popularity"] = Field(
        default="uniform", description="how negatives are drawn"
    )
    validation_users: int = Field(
        default=5000, ge=1, description="at most so many, evenly spaced, are ranked after an epoch"
    )
    temperature: float = Field(default=1.0, gt=0, description="divides the scores in the loss")
    shuffle_within_groups: bool = Field(
        default=True, description="reshuffle each basket in every epoch, where groups are given"
    )
    ids: bool = Field(
        default=True, description="whether each item has a vector of its own, beside the projection of its content"
    )
    turned: bool = Field(
        default=False,
        description="whether all item vectors are turned at random in each step, so that what is learned serves other "
        "catalogues rather than this one",
    )
    next_item: float = Field(default=1.0, ge=0, description="weight of predicting the next item; 0 leaves it out")
    masked_item: float = Field(default=0.0, ge=0, description="weight of predicting hidden items from both sides")
    contrastive: float = Field(
        default=0.0, ge=0, description="weight of telling two altered views of one history from those of others"
    )
    mask_share: float = Field(default=0.2, gt=0, lt=1, description="items hidden, of those masked_item asks about")
    contrastive_temperature: float = Field(default=0.2, gt=0, description="divides the likeness of two views")
    ensemble: int = Field(
        default=1,
        ge=1,
        description="models of different seeds, their scores averaged; each costs a training and time in answers",
    )
    refit_epochs: int = Field(default=3, ge=1, description="epochs that `endcap refit` goes on for, `epochs` at most")
    start: str = Field(default="", description="folder of `endcap pretrain` to begin from, seen from the workspace")

    @model_validator(mode="after")
    def _has_an_objective(self) -> Self:
        if not self.next_item + self.masked_item + self.contrastive:
            raise ValueError("one of next_item, masked_item and contrastive must weigh more than 0")
        return self

    def member(self, place: int) -> SequenceConfig:
        """Of the ensemble's models, from 0: the first has the seed itself."""
        return self.model_copy(update={"seed": self.seed + MEMBERS_APART * place, "ensemble": 1})

    @property
    def hides_items(self) -> bool:
        """Whether an objective puts a mask in an item's place."""
        return self.masked_item + self.contrastive > 0

    @property
    def longest(self) -> int:
        """Positions of the longest row that is ever read. Where items are hidden, a window is read with its last item;
        one that is asked about by a mask has that behind it."""
        return self.max_len + int(self.hides_items) + int(self.asks_by_mask and self.contrastive > 0)

    @property
    def asks_by_mask(self) -> bool:
        """Whether what comes next is asked by a mask after the history, as in BERT4Rec: where no objective has taught
        the last item's position to say it."""
        return self.masked_item > 0 and self.next_item == 0
