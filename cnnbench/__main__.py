"""The command line: `cnnbench VERB ...` calls the function of a verb, and every error becomes one line and a code."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from cnnbench.cli import front, streams
from cnnbench.extras import absent
from cnnbench.types import ERROR_FILE, CnnbenchError, Exit, Terminated, one_line, printable


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code. A mistake of the user is one line on stderr, never a traceback."""
    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    before = _handle_signals()
    threading.excepthook, hook = _thread_failed, threading.excepthook
    streams.settle()
    # torchmetrics imports it where it is installed, and it tells where it would have kept its cache of fonts
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        code = _dispatch(arguments)
        if sys.stdout:
            sys.stdout.flush()  # here, where what goes wrong is told
        return code
    except CnnbenchError as error:
        return _fail(str(error), error.code, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", Exit.INTERRUPTED, debug)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit 1
            return _fail("interrupted", Exit.INTERRUPTED, debug)
        if isinstance(error.code, str):
            return _fail(error.code, Exit.BUG, debug)
        return error.code or Exit.OK
    except MemoryError:
        advice = ": use a smaller --data.batch_size" * (arguments[:1] != ["verify"])
        return _fail(f"out of memory{advice}", Exit.ENVIRONMENT, debug)
    except Exception as error:
        if known := absent(next(iter(arguments), "cnnbench"), error):
            return _fail(str(known), known.code, debug)
        if type(error).__name__ == "OutOfMemoryError":  # torch's, known without importing it
            return _fail("the GPU is out of memory: use a smaller --data.batch_size", Exit.ENVIRONMENT, debug)
        return (
            _no_room(error, debug)
            or _no_home(error, debug)
            or _too_little_memory(error, debug)
            or _unreadable_package(error, debug)
            or _unexpected(error, debug)
        )
    finally:
        if own_process and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            before.pop(signal.SIGINT, None)  # interrupted: one more Ctrl-C while Python ends would be a traceback
        for signum, handler in before.items():
            signal.signal(signum, handler)
        threading.excepthook = hook


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0].startswith("-"):
        return front.run(arguments)
    verb, *words = arguments
    entry = front.entry(verb)
    from cnnbench.cli import parser

    if entry.__name__ == "main":  # reads its command line itself
        parser.check_flags(verb, words)
        return entry(words)
    parsed = parser.parse(verb, entry, arguments=words)
    return entry(*parsed.args, **parsed.kwargs)


def _handle_signals() -> dict[int, Any]:
    """Let signals that ask a verb to end raise, so that it cleans up; returns the handlers before.

    One that is ignored stays so, as nohup wants.
    """
    handlers = {signal.SIGINT: _interrupt, signal.SIGTERM: _terminate}
    handlers |= {getattr(signal, name): _terminate for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)}
    return {
        signum: signal.signal(signum, handler)
        for signum, handler in handlers.items()
        if signal.getsignal(signum) != signal.SIG_IGN
    }


def _interrupt(*_: Any) -> NoReturn:
    """Ctrl-C; an interrupt just after it is not a second request, and would interrupt what the first one cleans up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _terminate(signum: int, _: object) -> NoReturn:
    raise Terminated(128 + signum)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    # of a command line, a parser may say more than a line; else it is the name of a file that has line ends
    message = (
        printable(message) if code == Exit.USAGE else one_line(message)
    )  # names of files, and what a file of another holds
    print(f"cnnbench: {message}", file=sys.stderr)
    if ERROR_FILE in os.environ:
        with suppress(OSError):  # a process of DDP may outlive the one that the sweep waits for
            Path(os.environ[ERROR_FILE]).write_text(message, encoding="utf-8", errors="backslashreplace")
    return code


def _too_little_memory(error: Exception, debug: bool) -> int:
    """Say that a library did not load under a limit on memory; else 0."""
    from cnnbench.environment import address_space, ran_out_of_memory

    limit = address_space()
    if limit is None or not isinstance(error, ImportError | OSError) or not ran_out_of_memory(str(error)):
        return Exit.OK
    message = f"{limit / 2**30:.3g} GiB of address space are too little to load the libraries: raise `ulimit -v`"
    return _fail(message, Exit.ENVIRONMENT, debug)


def _no_room(error: Exception, debug: bool) -> int:
    """Say that nothing more can be written, to a file, a temporary folder or stdout; else 0."""
    from tempfile import gettempdir

    from cnnbench.records import no_room

    if code := no_room(error):
        with suppress(OSError):  # what is left of stdout would fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        place = getattr(error, "filename", None)
        temporary = place == gettempdir()
        message = f"cannot write{f' {place}' * bool(place)}: {os.strerror(code)}"
        advice = "; temporary files lie there: set TMPDIR to another folder" * temporary
        return _fail(message + advice, Exit.ENVIRONMENT if temporary else Exit.USAGE, debug)
    if getattr(error, "errno", None) == errno.ENOENT and "No usable temporary directory" in str(error):
        return _fail("there is no temporary folder that can be written: set TMPDIR to one", Exit.ENVIRONMENT, debug)
    return Exit.OK


def _no_home(error: Exception, debug: bool) -> int:
    """Say that a library wants a folder of the user, who has none; else 0."""
    if not isinstance(error, RuntimeError) or "home directory" not in str(error):
        return Exit.OK
    return _fail("there is no home folder: set HOME to one that can be written", Exit.ENVIRONMENT, debug)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk: TensorBoard's thread raises, and its caller raises the same once more."""
    if not (isinstance(failed.exc_value, OSError) and failed.exc_value.errno == errno.ENOSPC):
        threading.__excepthook__(failed)


def _unreadable_package(error: Exception, debug: bool) -> int:
    """Name the package with a malformed entry_points.txt, where reading it ended the import of torch; else 0."""
    if not any("importlib/metadata" in place.filename for place in traceback.extract_tb(error.__traceback__)):
        return Exit.OK
    from cnnbench.registry import unreadable_packages

    for package, reason in unreadable_packages().items():
        message = f"the package {package} cannot be read, and torch does not load beside it: {reason}; uninstall it"
        return _fail(message, Exit.ENVIRONMENT, debug)
    return Exit.OK


def _unexpected(error: Exception, debug: bool) -> int:
    """Report an exception that is an internal error in one line, with the place where it was raised."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    message = f"unexpected {type(error).__name__} at {place}: {_one_line(str(error))}"
    advice = "(an internal error: run again with --debug and report the traceback)"
    return _fail(f"{message} {advice}", Exit.BUG, debug)


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
