"""Faults of synchronous pairs, made on purpose: each breaks what such a pair promises. Seeds of the scenario `mirrored`
have to find it."""

from __future__ import annotations

from typing import Any

MIRROR_MUTATIONS: dict[str, dict[str, Any]] = {}
"""By what goes wrong."""
MIRROR_FIRST_FOUND: dict[str, int] = {}
"""The first of the scenario's seeds that finds each."""
