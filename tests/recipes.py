"""The scripts and configurations that a page of the documentation holds."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page, with what stands in it as blocks of one language or another."""

    blocks: list[tuple[str, str]]

    def scripts(self) -> dict[str, str]:
        """Shell scripts, by the path that their second line names."""
        found = {}
        for language, text in self.blocks:
            if language == "sh":
                first, second = text.splitlines()[:2]
                assert first == "#!/bin/sh"
                found[second.split()[1]] = text
        return found

    def configuration(self, name: str) -> str:
        """The block of TOML that configures a backup of this name, with nothing else in it."""
        (text,) = (
            text
            for language, text in self.blocks
            if language == "toml" and name in self._backups(text)
        )
        return text

    @staticmethod
    def _backups(text: str) -> dict[str, Any]:
        found: dict[str, Any] = tomllib.loads(text)["backup"]
        return found

    def block(self, language: str) -> str:
        """The only block of a language."""
        (text,) = (text for found, text in self.blocks if found == language)
        return text


def page(name: str) -> Page:
    """A page of the documentation."""
    return Page(_BLOCK.findall((DOCS / name).read_text()))
