"""A torch module -> an ONNX model, without the exporter's own talk."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from endcap.core.errors import CallerError, MissingExtraError, ServiceError

ANOTHER = "Choose a model whose steps do not depend on what it reads."
LARGEST = 1.9e9  # bytes: no ONNX file without others beside it holds more than 2 GB


def graph_of(module: nn.Module, inputs: Mapping[str, Tensor], output: str, axes: Sequence[Mapping[int, Any]]) -> Any:
    """inputs: name -> an example. axes: of each input, which are free (`torch.export.Dim`).

    Raises MissingExtraError without onnxscript, ServiceError where the exporter cannot follow the module.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnxscript", "train") from error
    try:
        with quiet():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=tuple(dict(one) for one in axes),
                verbose=False,
            )
    except Exception as error:  # its own, and those of what it traces
        said = f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0]}"
        raise ServiceError(f"The model cannot be written as ONNX: {said}", next_step=ANOTHER) from error
    if program is None:
        raise ServiceError("The ONNX exporter returned nothing.", where=output, next_step="Check the torch version.")
    return program.model_proto


def check_size(module: nn.Module, name: str) -> None:
    """Raises CallerError for a model that one ONNX file does not hold."""
    if (size := sum(4 * tensor.numel() for tensor in module.parameters())) > LARGEST:
        raise CallerError(
            f"The model has {size / 1e9:.1f} GB of weights, more than one ONNX file holds.",
            where=name,
            next_step="Choose a smaller model, or serve this one with torch.",
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter prints its steps and warns of its own internals; neither is news to whoever exports a model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
