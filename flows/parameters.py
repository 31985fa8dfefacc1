"""Types of parameters that several flows have: Prefect's pages show their bounds, and refuse what does not fit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mixdpo.studies.catalogue import MODULES

Workers = Annotated[int, Field(ge=1, le=64)]
Seeds = Annotated[int, Field(ge=1, le=1000)]
StudyName = Annotated[str, Field(json_schema_extra={"enum": [*MODULES]})]
Reference = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(@\S+)?$", examples=["reviews@staging", "reviews@v3"])]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
