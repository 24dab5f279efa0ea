"""The command line: deepred restore | run | reproduce | results | verify | bench | data.

Each command's module is imported when it is called: `deepred --help` needs neither torch nor
pandas, and a signal is heard from the first line on.
"""

from __future__ import annotations

import os
import signal
import sys

from ..errors import DivergedError, InputError

PRINTED = ("results_diff", "verify", "bench", "data_list")  # commands that leave nothing but text


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    streams, status = (sys.stdout, sys.stderr), 1
    sys.stdout, sys.stderr = _Lenient(sys.stdout), _Lenient(sys.stderr)
    try:
        _on_signal(_leave)
        from .options import command_of  # imports the command's module

        command, options = command_of(arguments)
        _on_signal(signal.default_int_handler)
        status = command(options)
        sys.stdout.flush()
        if sys.stdout.failed and options.command[1] in PRINTED:
            status = 1
    except (InputError, OSError) as error:
        _say(error)
        status = 2
    except DivergedError as error:
        _say(error)
    except MemoryError:
        _say("not enough memory: use a smaller image, a smaller --tile or --method red")
    except KeyboardInterrupt as error:
        _say(f"interrupted; {str(error) or 'the same command continues from what was saved'}")
        status = 130
    finally:
        _on_signal(_leave)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if sys.stdout.failed and not isinstance(sys.stdout.failed, BrokenPipeError):
            _say(f"standard output: {sys.stdout.failed.strerror}")
        if arguments is not None:  # called by a program that goes on
            sys.stdout, sys.stderr = streams
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return status


class _Lenient:
    """A stream that ends no work: a full device or a closed pipe does not raise.

    What its encoding lacks is written as an escape. `failed` is the error, None while there is
    none.
    """

    def __init__(self, stream) -> None:
        self.stream, self.failed = stream or open(os.devnull, "w"), None  # None: it was closed
        if hasattr(self.stream, "reconfigure"):
            self.stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, action: str, *arguments) -> None:
        if self.failed is None:
            try:
                getattr(self.stream, action)(*arguments)
            except OSError as error:
                self.failed = error
                with open(os.devnull, "w") as null:  # else Python fails again when it ends
                    os.dup2(null.fileno(), self.stream.fileno())


def _say(what: object) -> None:
    print("deepred:", " ".join(str(what).splitlines()), file=sys.stderr)


def _on_signal(handler) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a shell's background job
            signal.signal(number, handler)


def _leave(*_) -> None:
    """While nothing is under way: torch, half imported, would make a traceback of an exception."""
    os.write(2, b"deepred: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
