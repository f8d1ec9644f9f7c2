"""Determines which version of its signature a provider uses, where its documentation doesn't say."""

from typing import Final, Literal

import structlog

_log: Final = structlog.get_logger()


class SignVersions:
    """The versions of a signature that an integration accepts."""

    def __init__(self, integration: str, setting: Literal["auto"] | int, known: tuple[int, ...]) -> None:
        """Take the setting, a version or "auto", and all known versions, the current one first."""
        self._integration: Final = integration
        self.is_determined: bool = setting != "auto"
        self.accepted: tuple[int, ...] = known if setting == "auto" else (setting,)

    def learn(self, version: int) -> None:
        """Accept only the current version once a message of it has been posted.

        A valid signature is not enough, since a message of one version may be cut into one of another.
        """
        if not self.is_determined and version == self.accepted[0]:
            self.is_determined, self.accepted = True, (version,)
            _log.info("sign version found", integration=self._integration, sign_version=version)
