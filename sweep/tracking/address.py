"""Tracking addresses: which one holds, and what of it may be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rdc.errors import UserError

DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
SERVER_SCHEMES = ("http", "https")


def tracking_uri(configured: str | None, runs_dir: Path) -> str:
    """The configured URI, else $MLFLOW_TRACKING_URI, else a SQLite file beside the sweeps.

    UserError if MLflow could not write there.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve()}/mlflow.db"
    if "://" not in uri or scheme(uri) not in (*DATABASE_SCHEMES, *SERVER_SCHEMES):
        raise UserError(
            f"tracking.uri={redact(uri)!r} (or $MLFLOW_TRACKING_URI) is nothing that MLflow can write to; "
            "expected http(s)://HOST, sqlite:////ABSOLUTE/PATH.db or another database, or leave it null"
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
        if redact(configured) != configured:
            raise UserError(
                f"tracking.artifacts={redact(configured)!r}: everybody would see its credentials in MLflow; "
                "give them by the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3"
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


def server_name(uri: str) -> str:
    """The URI without credentials and options: what may stand in files and on the terminal."""
    if scheme(uri) == "sqlite":
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "", ""))


def redact(text: str) -> str:
    """The text without the credentials that an address in it may carry."""
    # A password may itself hold an "@", so everything up to the last one before the path goes.
    # A path made of an address has one slash.
    text = re.sub(r"(\w[\w+.-]*:/{1,3})[^/\s'\"]*@", r"\1***@", text)
    return re.sub(r"(?i)\b(\w*(?:password|passwd|pwd|token|secret))=[^&\s'\"]+", r"\1=***", text)


def redact_tree(tree: Any) -> Any:
    """The same of every text in what JSON can hold."""
    if isinstance(tree, Mapping):
        return {key: redact_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [redact_tree(value) for value in tree]
    return redact(tree) if isinstance(tree, str) else tree
