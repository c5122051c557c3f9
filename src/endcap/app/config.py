"""The root of the configuration: one section for each thing a shop may want to change.

`endcap.toml` holds only what differs; an empty file equals the defaults.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from endcap.app.media import ContentConfig
from endcap.core.errors import CallerError
from endcap.core.section import Section
from endcap.data.open_store import StoreConfig
from endcap.data.read import DataConfig
from endcap.encoders.fuse import FusionConfig
from endcap.encoders.image import ImageEncoderConfig
from endcap.encoders.speech import SpeechConfig
from endcap.encoders.text import TextEncoderConfig
from endcap.models.buy_again import BuyAgainConfig
from endcap.models.config import SequenceConfig
from endcap.models.neighbour_fits import NeighbourConfig
from endcap.models.popularity import PopularityConfig
from endcap.models.ranker import RankerConfig
from endcap.models.shoppers import ShopperConfig
from endcap.models.transitions import TransitionConfig
from endcap.models.words import WordsConfig
from endcap.recommend.select import SlateConfig

SOURCES = (
    "buy_again",
    "together",
    "knn",
    "knn_last",
    "transitions",
    "transitions_last",
    "second_hop",
    "ease",
    "ease_cart",
    "shoppers",
    "sequence",
    "content",
    "words",
    "category",
    "newcomers",
    "trending",
    "popular",
)


class TrainConfig(Section):
    seed: int = Field(0, description="Seed of everything random in training and evaluation.")
    threads: int = Field(2, ge=1, description="Threads that training may use.")
    sources: tuple[str, ...] = Field(
        SOURCES, min_length=1, description="Candidate sources to fit, in the order the ranker sees them."
    )
    optional: tuple[str, ...] = Field(
        ("sequence", "words"), description="Sources that stay only if the ranker is measurably better with them."
    )
    per_source: int = Field(50, ge=1, description="Candidates each source proposes for a query.")
    shortlist: int = Field(
        100, ge=1, description="Candidates that the ranker looks at: the best by a blend of the sources' scores."
    )
    split: Literal["time", "leave_one_out"] = Field(
        "time", description="What is held out: the end of the log, or each user's last two acts."
    )
    shares: tuple[float, float, float] = Field(
        (0.6, 0.2, 0.2), description="Shares of the events, by time, for training, validation and test."
    )
    moments: int = Field(3, ge=1, description="Moments of the validation period at which ranker examples are taken.")
    window_days: float = Field(28.0, gt=0, description="An example is a user's first basket this soon after a moment.")
    examples: int = Field(60_000, ge=1, description="Most cases of a moment that the ranker learns from, by lot.")
    negatives: int = Field(30, ge=1, description="Candidates that were not bought, kept of each example.")
    newcomers: float = Field(
        0.25, ge=0, le=1, description="Share of the examples that are asked again as if of an anonymous visitor."
    )
    measured: int = Field(
        50_000, ge=1, description="Most users who are asked when a model is measured, by lot, the same for every seed."
    )
    cart_min_items: int = Field(6, ge=2, description="Baskets with fewer items give no cart examples.")
    content_dim: int = Field(128, ge=2, description="Dimensions that content vectors are reduced to.")

    @field_validator("sources", "optional")
    @classmethod
    def _known(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in sources if name not in SOURCES]
        if unknown:
            raise ValueError(f"{unknown} cannot be fitted; there are: {', '.join(SOURCES)}")
        return sources


class JudgeConfig(Section):
    model: str = Field(
        "",
        description="Run folder of a cross-encoder tuned for interest or ranking, seen from the workspace; it reads "
        "the first candidates where validation shows that this helps. Empty: none.",
    )
    top: int = Field(10, ge=2, description="First candidates that are read.")
    examples: int = Field(
        3000, ge=1, description="Validation queries with a target among them that it is tried on, at most, by lot."
    )


class ServeConfig(Section):
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8765, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, description="Processes that answer. More than one needs the store on Postgres.")


class StateConfig(Section):
    # Neither printed nor written into manifests: it may hold a password.
    url: str = Field(
        "",
        repr=False,
        exclude=True,
        description="Where shoppers' state is kept while the server runs. Empty: in each process. "
        "`redis://HOST:6379/0`: on Redis, for all workers. The variable `ENDCAP_STATE_URL` goes before it.",
    )
    prefix: str = Field(
        "",
        description="What the keys on Redis begin with; one for each shop. Empty: the workspace's name and a key of "
        "its path. Workers that see the workspace under different paths need the same one here.",
    )
    timeout_ms: int = Field(250, ge=1, description="Longest wait for Redis; then an answer does without it.")


class Config(DataConfig):
    """Everything in `endcap.toml`: how data are read and cleaned, how models are trained, how answers are served."""

    train: TrainConfig = TrainConfig()
    popularity: PopularityConfig = PopularityConfig()
    buy_again: BuyAgainConfig = BuyAgainConfig()
    neighbours: NeighbourConfig = NeighbourConfig()
    shoppers: ShopperConfig = ShopperConfig()
    transitions: TransitionConfig = TransitionConfig()
    words: WordsConfig = WordsConfig()
    sequence: SequenceConfig = SequenceConfig()
    text: TextEncoderConfig = TextEncoderConfig()
    image: ImageEncoderConfig = ImageEncoderConfig()
    speech: SpeechConfig = SpeechConfig()
    content: ContentConfig = ContentConfig()
    fusion: FusionConfig = FusionConfig()
    ranker: RankerConfig = RankerConfig()
    judge: JudgeConfig = JudgeConfig()
    slate: SlateConfig = SlateConfig()
    serve: ServeConfig = ServeConfig()
    state: StateConfig = StateConfig()
    store: StoreConfig = StoreConfig()

    def seen_from(self, workspace: Path) -> Config:
        """With the folders and files of local models found where the workspace has them. CallerError for one that only
        whoever stands elsewhere could find."""
        found: dict[str, Section] = {}
        for name in ("text", "image", "speech"):
            section = getattr(self, name)
            if section.model and (place := workspace / section.model).exists():
                found[name] = section.model_copy(update={"model": str(place.resolve())})
            elif section.model and Path(section.model).exists():
                seen = os.path.relpath(Path(section.model).resolve(), workspace.resolve())
                raise CallerError(
                    f"There is no {section.model!r} in the workspace, from which it is seen.",
                    where=f"[{name}] model",
                    next_step=f'Write "{seen}".',
                )
        return self.model_copy(update=found) if found else self


def load_config(path: Path) -> Config:
    """Read `endcap.toml`. CallerError names the key that is wrong."""
    try:
        return Config.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CallerError(f"The file is not valid TOML: {error}.", where=str(path)) from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CallerError(
            f"{wrong}.", where=str(path), next_step="All keys are in docs/reference/configuration.md."
        ) from error


def reference() -> str:
    """Every section and key of `endcap.toml` with its default and meaning, as Markdown."""
    return described(
        Config, ["# Configuration", "", "Every key of `endcap.toml`. An empty file equals these defaults."]
    )


def described(config: type[BaseModel], head: list[str]) -> str:
    """The sections of a config, each as a table, after the head; keys outside sections come first."""
    sections: list[tuple[str, type[Section]]] = []
    top: list[str] = []
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            sections.append((name, kind))
        else:
            top.append(_row(name, field))
    lines = [*head, ""]
    if top:
        lines += [*TABLE, *top, ""]
    for name, section in sections:
        rows = [_row(key, entry) for key, entry in section.model_fields.items()]
        lines += [f"## `[{name}]`", "", *TABLE, *rows, ""]
    return "\n".join(lines)


TABLE = ("| Key | Default | Meaning |", "|---|---|---|")


def _row(key: str, entry: FieldInfo) -> str:
    default = entry.get_default(call_default_factory=True, validated_data={})
    shown = "" if default is PydanticUndefined else _toml(default)
    return f"| `{key}` | `{shown}` | {(entry.description or '').replace('|', chr(92) + '|')} |"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return f'"{value}"'
    return "{}" if value == {} else "" if value is None else str(value)
