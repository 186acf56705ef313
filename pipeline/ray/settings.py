"""What applications of nodes and routers are deployed with."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pipeline.launcher.certificates import link_files


class Common(BaseModel):
    """`model` is a folder or a YAML file, at the same path on every machine, as are the certificates."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="a model's folder, or a file as in configs/")
    certificates: str = Field(description="a folder as `ringserve certificates` makes it, for all machines' hosts")
    settings: list[str] = Field([], description="KEY=VALUE, as with --set")
    unwell_s: float = Field(
        120.0, ge=0, description="in which /health may say no: a launcher starts stages anew itself"
    )
    drain_s: float = Field(60.0, ge=0, description="for what runs at a server that is stopped to end there")

    def launch(self, role: str, *settings: str) -> list[str]:
        """Arguments of the launcher."""
        where = ["--config", self.model] if Path(self.model).suffix in (".yaml", ".yml") else [self.model]
        links = [f"{key}={file}" for key, file in link_files(Path(self.certificates), role).items()]
        drain = f"pipeline.drain_timeout_s={self.drain_s}"
        every = (drain, "pipeline.metrics_port=0", *self.settings, *links, *settings)
        return [*where, *(word for one in every for word in ("--set", one))]


class NodeSettings(Common):
    min_nodes: int = Field(1, ge=1)
    max_nodes: int = Field(1, ge=1)
    npus: float = Field(0, ge=0, description="of a node; 0: it needs none")
    cpus: float = Field(1, ge=0, description="of a node, as Ray counts them")
    host: str | None = Field(None, description="for routers; None: the machine's address, as Ray knows it")
    rows_used: float = Field(0.8, gt=0, le=1, description="of a node: beyond it there should be another one")
    upscale_delay_s: float = Field(10.0, ge=0)
    downscale_delay_s: float = Field(300.0, ge=0)
    look_back_s: float = Field(15.0, gt=0, description="over which loads are averaged")
    surge_percent: int = Field(0, ge=0, le=100, description="nodes that an upgrade may start beyond those there are")


class RouterSettings(Common):
    routers: int = Field(1, ge=1)
    host: str = "127.0.0.1"
    ports: list[int] = Field([8835], min_length=1, description="a router takes the first that is free")
    max_nodes: int = Field(16, ge=1, description="that a router can have; those that leave count")
