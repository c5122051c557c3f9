"""The error tree, grouped by who has to act.

EndcapError
├── CallerError     the request is wrong          HTTP 4xx, exit 2
│   ├── NotFoundError   what it names is not there    HTTP 404
│   └── TooManyError    more than is taken at once    HTTP 429, with Retry-After
├── DataError       the data is wrong             exit 3
└── ServiceError    ours, or a dependency's       HTTP 5xx, exit 1
    ├── ArtifactError   a release is damaged or of another version
    └── MissingExtraError   an optional dependency is not installed
"""

from __future__ import annotations

import errno


class EndcapError(Exception):
    """Base of every error Endcap raises on purpose.

    what: one sentence, what was wrong. where: file, line, field or route. next_step: what to do now.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        self.what, self.where, self.next_step = what, where, next_step
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} {self.next_step}" if self.next_step else text


class CallerError(EndcapError):
    """The request is wrong; the caller can mend it."""

    exit_code = 2
    http_status = 422


class NotFoundError(CallerError):
    """The request names an item, user, release or workspace that does not exist."""

    http_status = 404


class TooManyError(CallerError):
    """More is asked than is taken at once; nothing was done. retry_after_s: whole seconds after which to ask again."""

    http_status = 429

    def __init__(self, what: str, *, where: str = "", next_step: str = "", retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(what, where=where, next_step=next_step)


class DataError(EndcapError):
    """The data is wrong beyond what quarantining single rows can save."""

    exit_code = 3
    http_status = 422


class ServiceError(EndcapError):
    """Endcap, or something it depends on, failed."""

    exit_code = 1
    http_status = 503


def disk_error(error: OSError) -> ServiceError | None:
    """What to say of a disk that is full, broken or not to be written to; None for any other error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return None
    return ServiceError(
        f"A file cannot be written or read: {error.strerror}.",
        where=str(error.filename or ""),
        next_step="See that the disk works, may be written to and has space; then try again.",
    )


class ArtifactError(ServiceError):
    """A release is incomplete, damaged, or written by an incompatible version."""


class MissingExtraError(ServiceError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"The package {package!r} is not installed.",
            next_step=f"Install it with: pip install 'endcap[{extra}]'",
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """So that one raised in another process arrives as it is."""
        return type(self), (self.package, self.extra)
