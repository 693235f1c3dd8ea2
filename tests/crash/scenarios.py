"""All scenarios, by their names: what is cut at system calls, and by power cuts."""

from __future__ import annotations

import importlib

from crash.scenario import Scenario

FAMILIES = ("nightly", "removing", "catalogs", "mending", "commands")


def scenarios() -> dict[str, type[Scenario]]:
    """Every kind of scenario there is."""
    found: dict[str, type[Scenario]] = {}
    for family in FAMILIES:
        found.update(vars(importlib.import_module(f"crash.{family}")))
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, Scenario) and name[0] != "_"
    }
