"""What may be passed on: texts without credentials, absolute paths and names of hosts.

Every pattern reads a text in one go, however long its words are: logs hold whatever a program printed.
"""

from __future__ import annotations

import functools
import re
import socket

HOST = "HOST"
HIDDEN = "***"

# All but tabs and line ends, which logs hold.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# A path made of an address has one slash. Not from within a word, or long words would be read many times.
_SCHEME = r"(?<![\w+.-])(\w[\w+.-]{0,30}:/{1,3})"
# A password may hold "@", "/", "#" or "?", so everything up to the last "@" goes. A port is no password.
_LOGIN_IN_TEXT = re.compile(rf"{_SCHEME}(?:[^/\s'\":@]*:(?!\d{{1,5}}/)[^\s'\"]{{0,500}}|[^/\s'\"]{{0,500}})@")
_LOGIN_IN_VALUE = re.compile(rf"{_SCHEME}(?:[^/:@]*:(?!\d{{1,5}}/).{{0,500}}|[^/]{{0,500}})@")

_SECRET_NAME = (
    r"(?:password|passwd|passphrase|pwd|token|secret|credentials?|signature|sig"
    r"|(?:api|access|secret|private|auth)[_-]?key(?:[_-]?id)?)"
)
_NAMED = re.compile(
    rf"(?i)(?<![\w-])([\w-]*{_SECRET_NAME}['\"]?\s?[=:]\s?)"
    r"(?!//)(?:'[^'\n]+'|\"[^\"\n]+\"|['\"]?[^&\s'\"]+)"
)
_HEADER = re.compile(r"(?i)\b(authorization['\"]?\s?[=:]\s?['\"]?(?:basic |bearer )?|bearer )[\w.~+/=-]{6,}")
_IS_SECRET_NAME = re.compile(rf"(?i)(?:.*[\W_])?{_SECRET_NAME}")

# A database's file in an address; the scheme alone says what kind of server it is.
_FILE_ADDRESS = re.compile(r"(?<!\w)(sqlite|file)(?:\+\w+)?:/{2,}[^\s'\",]*")
# From the root or a home on, and not within a word, an address, a fraction or an HTML tag.
_PATH = re.compile(r"(?<![\w:/.<~…*-])(?:~\w*(?=/)|/[\w.@+%~-]+)(?:/[\w.@+%=~-]+)*/?")
# Where the public web and buckets are is worth knowing; a server of one's own is known to those who use it.
_PUBLIC_SCHEMES = ("http", "https", "s3", "gs")
_ADDRESS = re.compile(r"(?<![\w+.-])(\w[\w+.-]{0,30})://(\*\*\*@)?([\w.-]+|\[[\da-fA-F:.]+\])")
# A cluster's head is no address with a scheme: cluster.address=head:6379.
_HEAD = re.compile(r"(?<![a-z0-9])(address=['\"]?)[\w.-]+(?=:\d)", re.IGNORECASE)


def plain_text(text: str) -> str:
    """The text without bytes that are none, which names of files may hold and which no table takes, and
    without what a terminal obeys.
    """
    return _CONTROL.sub("?", text if text.isascii() else text.encode(errors="replace").decode())


def redact(text: str) -> str:
    """The text without the credentials that addresses in it, or names such as password=, carry."""
    return _redact_names(_LOGIN_IN_TEXT.sub(rf"\1{HIDDEN}@", text))


def redact_value(text: str) -> str:
    """The same of a text that is one value, such as an address: its password may hold spaces and quotes."""
    return redact(_LOGIN_IN_VALUE.sub(rf"\1{HIDDEN}@", text))


def is_secret_name(name: str) -> bool:
    """Whether what is called so is to be kept: db_password, api-key, AWS_SECRET_ACCESS_KEY."""
    return _IS_SECRET_NAME.fullmatch(name) is not None


def public_text(text: str) -> str:
    """The text with …/NAME for /absolute/path/NAME and HOST for this machine's and private servers' names."""
    text = _FILE_ADDRESS.sub(lambda found: f"{found[1]}:…/{_last(found[0])}", redact(text))
    text = _HEAD.sub(rf"\1{HOST}", _ADDRESS.sub(_public_address, text))
    text = _PATH.sub(lambda found: f"…/{_last(found[0])}", text)
    for name in _host_names():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", HOST, text)
    return text


def _redact_names(text: str) -> str:
    return _HEADER.sub(rf"\1{HIDDEN}", _NAMED.sub(rf"\1{HIDDEN}", text))


def _public_address(found: re.Match[str]) -> str:
    scheme, login, host = found[1], found[2] or "", found[3]
    is_named = scheme in ("s3", "gs") or ("." in host and not host.rpartition(".")[2].isdigit())
    return found[0] if scheme in _PUBLIC_SCHEMES and is_named else f"{scheme}://{login}{HOST}"


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


@functools.cache
def _host_names() -> tuple[str, ...]:
    """This machine's names, the longest first. Too short or too common a word says nothing of a host."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    return tuple(sorted((n for n in names if len(n) > 2 and n != "localhost"), key=len, reverse=True))
