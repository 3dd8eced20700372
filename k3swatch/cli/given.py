"""What options mean: the configuration, the ports, values that must parse. UsageError when they mean nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from k3swatch.errors import UsageError

if TYPE_CHECKING:
    from k3swatch.config import Config
    from k3swatch.model.port import ProtectedPort

T = TypeVar("T")


def config_path(args: argparse.Namespace) -> str | None:
    """The configuration file that was asked for, or the usual one when there is one."""
    from k3swatch.config.settings import DEFAULT_FILE

    default = os.path.join(getattr(args, "root", "/"), DEFAULT_FILE.lstrip("/"))
    path: str | None = args.config
    return path or (default if os.path.exists(default) else None)


def configuration(args: argparse.Namespace) -> Config:
    """The configuration in force for this command. ConfigError."""
    from k3swatch import config

    return config.load(config_path(args))


def with_k3s(config: Config, args: argparse.Namespace) -> Config:
    """The configuration with the ports of the K3s that is found here; none is looked for on behalf of a snapshot."""
    from dataclasses import replace

    if not config.k3s.auto or (getattr(args, "snapshot", None) and args.root == "/"):
        return config
    from k3swatch.k3s.resolve import resolve

    found = resolve(config, args.root)
    return config if found is None else replace(config, ports=found.ports)


def protected(spec: str, config: Config) -> ProtectedPort:
    """The configured port that is called so, or one on every address of this host."""
    from k3swatch.config.words import port_spec

    for port in config.ports:
        if spec in (port.name, port.spec, port.spec.removeprefix("tcp/")):
            return port
    try:
        return port_spec(spec)
    except ValueError as error:
        raise UsageError(str(error), "write tcp/6443, 6443, or a name of the configuration") from error


def value(option: str, parse: Callable[[str], T], text: str) -> T:
    """What an option's text means; UsageError when it cannot be meant."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
