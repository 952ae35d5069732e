"""Tracking addresses: which one holds, and what of it may be shown."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from analysis.public import HIDDEN, is_secret_name
from analysis.public import redact as redact
from analysis.public import redact_value as redact_value
from rdc.errors import UserError

DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
SERVER_SCHEMES = ("http", "https")


def tracking_uri(configured: str | None, runs_dir: Path) -> str:
    """The configured URI, else $MLFLOW_TRACKING_URI, else a SQLite file beside the sweeps.

    UserError if MLflow could not write there.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve()}/mlflow.db"
    shown = f"tracking.uri={redact_value(uri)!r} (or $MLFLOW_TRACKING_URI)"
    if "://" not in uri or scheme(uri) not in (*DATABASE_SCHEMES, *SERVER_SCHEMES):
        raise UserError(
            f"{shown} is nothing that MLflow can write to; "
            "expected http(s)://HOST, sqlite:////ABSOLUTE/PATH.db or another database, or leave it null"
        )
    if scheme(uri) in SERVER_SCHEMES and not _is_plain(uri):
        raise UserError(
            f"{shown} is no address of a server; expected http(s)://USER:PASSWORD@HOST:PORT without ? and #; "
            "in a password, write / as %2F, ? as %3F, # as %23 and @ as %40"
        )
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}"


def artifact_root(uri: str, configured: str | None, runs_dir: Path) -> Path | str | None:
    """Where the artifacts of a database URI go: a folder or an address; None if a server decides by itself.

    UserError for an address with credentials: MLflow shows it to every reader.
    """
    if scheme(uri) in SERVER_SCHEMES:
        return None
    if configured and "://" in configured:
        if redact_value(configured) != configured:
            raise UserError(
                f"tracking.artifacts={redact_value(configured)!r}: everybody would see its credentials in "
                "MLflow; give them by the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3"
            )
        return configured
    return Path(configured or runs_dir / "mlartifacts").resolve()


def scheme(uri: str) -> str:
    """`postgresql` for postgresql+psycopg2://..."""
    return uri.split("://")[0].split("+")[0]


def sqlite_path(uri: str) -> Path | None:
    """The absolute file of a SQLite URI, None for another kind of URI."""
    if scheme(uri) != "sqlite":
        return None
    return Path(uri.split(":///", 1)[-1]).resolve()


def is_relative_file(uri: str) -> bool:
    """Whether it is a SQLite file seen from the current folder."""
    return scheme(uri) == "sqlite" and not uri.split(":///", 1)[-1].startswith("/")


def server_name(uri: str) -> str:
    """The URI without credentials and options: what may stand in files and on the terminal."""
    if scheme(uri) == "sqlite":
        return uri
    parts = urlsplit(redact_value(uri))
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "", ""))


def _is_plain(uri: str) -> bool:
    """Whether the address has a host, perhaps a port, and ends in its path, to which the client appends."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and "@" not in parts.path and not parts.query and not parts.fragment


def redact_tree(tree: Any) -> Any:
    """What JSON can hold, without the credentials in its texts and without the values of secret names."""
    if isinstance(tree, Mapping):
        return {
            key: HIDDEN if isinstance(value, str) and is_secret_name(str(key)) else redact_tree(value)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [redact_tree(value) for value in tree]
    return redact_value(tree) if isinstance(tree, str) else tree


def redact_command(command: Sequence[str]) -> str:
    """The command as a shell would take it. Each argument by itself, since quoting hides where one ends."""
    return shlex.join(redact_value(argument) for argument in command)


class QuietParser(argparse.ArgumentParser):
    """Repeats what it does not understand, but no credentials in it."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message))
