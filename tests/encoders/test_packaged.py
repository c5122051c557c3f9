from dataclasses import replace
from pathlib import Path

import pytest

from endcap.core.errors import ArtifactError, MissingExtraError
from endcap.encoders.packaged import models_folder
from endcap.encoders.text import MINILM


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"endcap\[text\]"):
        replace(MINILM, module="no_such_module_at_all").find()


def test_other_weights_are_refused() -> None:
    with pytest.raises(ArtifactError, match="not those"):
        replace(MINILM, sha256="0" * 64).find()


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(ArtifactError, match="missing"):
        replace(MINILM, path="model/no-such-file").find()


def test_converted_weights_are_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENDCAP_MODELS", str(tmp_path))
    assert models_folder() == tmp_path
