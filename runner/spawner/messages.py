"""What the spawner can be asked. Nothing else: no image, mount, privilege or command."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_MIB = 1 << 20
_GIB = 1 << 30

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")]
"""The name of a run directory: one path component that leads nowhere else."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RunLimits(_Message):
    """What the container may use; bounded here too, should the caller not mean well."""

    memory_bytes: int = Field(ge=16 * _MIB, le=1024 * _GIB)
    processes: int = Field(ge=1, le=32768)
    cpus: float = Field(ge=0.01, le=1024)
    disk_bytes: int = Field(ge=_MIB, le=1024 * _GIB)
    open_files: int = Field(ge=16, le=1 << 20)


class Start(_Message):
    """Start the container of *run*; it ends with the connection that this came by."""

    do: Literal["start"]
    run: RunName
    limits: RunLimits


class Stop(_Message):
    """End the container of *run*, whoever started it; there may be none."""

    do: Literal["stop"]
    run: RunName


class List(_Message):
    """Tell which runs have a container."""

    do: Literal["list"]


Request = Start | Stop | List
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="do")])
