"""`python -m sweep +experiment=frontier`: Hydra composes the configuration, the driver runs it.

`python -m sweep status`, `stop` and `sync` are about a sweep that there is already; each has --help.

Exit codes: 0 every trial is fine; 1 some failed; 2 the user's mistake; 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from types import TracebackType
from typing import Any

from conf import HOW_TO_SWEEP, explain, is_no_choice
from rdc.errors import UserError
from rdc.lean_import import lean_compressai

# Commands besides the sweep itself, each a module of this package with a main.
_COMMANDS = ("status", "stop", "sync")


def main() -> int:
    sys.excepthook = _show_redacted
    try:
        if sys.argv[1:2] and sys.argv[1] in _COMMANDS:
            return int(importlib.import_module(f"sweep.{sys.argv[1]}").main(sys.argv[1:]))
        lean_compressai()
        composed = _composed(sys.argv)
        if composed is None:  # --help, --cfg and their kind have printed what was asked
            return 0
        from sweep.driver import run_sweep

        config, overrides = composed
        return run_sweep(config, overrides=overrides, command=["python", "-m", "sweep", *sys.argv[1:]])
    except UserError as error:
        from sweep.tracking.address import redact

        print(f"error: {redact(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was started", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, a folder that may not be written
        if error.errno is None or "HYDRA_FULL_ERROR" in os.environ:
            raise
        name = error.filename2 or error.filename
        where = f"{name}: " if name else ""
        print(f"error: {where}{error.strerror}; HYDRA_FULL_ERROR=1 shows where it happened", file=sys.stderr)
        return 2


def _show_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A mistake of ours, as Python shows it, but without the credentials of an address in its message."""
    from sweep.tracking.address import redact

    print(redact("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def _composed(argv: list[str]) -> tuple[dict[str, Any], list[str]] | None:
    """The composed configuration and its overrides, or None when a flag asked Hydra to print something."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for argument in argv[1:]:
        if argument in ("-m", "--multirun", "hydra.mode=MULTIRUN") or argument.startswith("hydra.sweeper"):
            raise UserError(f"{argument}: a sweep plans its own trials; {HOW_TO_SWEEP}")

    composed: list[tuple[dict[str, Any], list[str]]] = []

    @hydra.main(config_path="pkg://conf", config_name="config", version_base="1.3")
    def keep(config: DictConfig) -> None:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(plain, dict), "the configuration is a mapping"
        hydra_config = HydraConfig.get()
        # Points of a space are composed on top; they have to find what --config-dir brought.
        folders = [s.path for s in hydra_config.runtime.config_sources if s.provider == "command-line"]
        search = (
            [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
        )
        overrides = [*hydra_config.overrides.task, *search]
        composed.append(({str(key): value for key, value in plain.items()}, overrides))

    asked_for_trace = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand the error to us instead of printing a page
    try:
        keep()
    except (HydraException, OmegaConfBaseException) as error:
        if asked_for_trace:
            raise
        raise UserError(explain(error, argv[1:])) from error
    except ValueError as error:
        if asked_for_trace or not is_no_choice(error):
            raise
        raise UserError(explain(error, argv[1:])) from error
    finally:
        if not asked_for_trace:
            del os.environ["HYDRA_FULL_ERROR"]
    return composed[0] if composed else None


if __name__ == "__main__":
    sys.exit(main())
