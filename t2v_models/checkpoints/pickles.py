"""Read a pickle without running it: a small interpreter that builds plain containers and descriptions of tensors.

Python's own unpickler imports and calls whatever the file names. This one reads the opcodes, and accepts the few functions
with which PyTorch writes tensors; any other class or function becomes an inert `Opaque`, a call of it gives another
`Opaque`, and nothing of the file is ever executed.

Why not torch.load(weights_only=True), which does not run code either:

- It refuses a whole file for one class that it does not allow. Trainers store their own classes beside the weights (the
  callbacks, enums and settings of a Lightning checkpoint), and such a file must load.
- It refuses a file in which code is hidden beside the weights; here the code is passed over, and the weights are read.
- It decides by the name: it reads any file that ends in ".safetensors" as one, whatever is inside.
- It cannot map files that PyTorch wrote before 1.6 into memory, and it needs PyTorch 2.6 to map and check at once.
- It cannot say in one sentence what is wrong with a damaged file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ..errors import T2VError
from ..foreign import Budget, quoted

LONGEST_TEXT = 1 << 16
"""Characters of a text, or bytes, beyond which they are passed over: no name of a tensor is so long."""
_LONGEST_NUMBER = 64
"""Bytes of a whole number, or digits of one, beyond which it is passed over: to hash or print a long one takes time."""
_LONGEST_NAME = 200
"""Characters of a class's name that are kept."""
_MOST_ARGUMENTS = 16
"""A call with more arguments is none of those that PyTorch writes."""
_BATCH = 1024
"""Operations that are counted at once."""


class DamagedPickle(T2VError):
    """The bytes are no complete pickle. The readers of torch_files.py turn it into an error that names the file."""


class ShortPickle(DamagedPickle):
    """The bytes end before the pickle does."""

    def __init__(self) -> None:
        super().__init__("its pickle ends too early: the file is truncated")


class Opaque:
    """Stands for anything that is neither a tensor nor a plain container."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name[:_LONGEST_NAME]

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Global(Opaque):
    """The name of a class or function, which is not imported."""


_MARK = object()
"""Stands on the stack where a container begins."""


def load(
    data: bytes | memoryview,
    budget: Budget,
    *,
    functions: dict[str, Callable[..., Any]] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Interpret the pickle with which `data` begins.

    Args:
        data: the bytes.
        budget: of the file, which pays for the operations and for what calls copy.
        functions: "module.name" of a class or function in the pickle -> what is called in its place.
        persistent_load: called with each reference to something outside the pickle, such as a storage.

    Returns:
        The object, and the pickle's length. Of dictionaries it has the keys that are texts; sets, and texts and numbers
        of extreme length, are an `Opaque`: nothing of them is needed, and to hash or copy them can take hours.

    Raises:
        DamagedPickle: where the bytes are no complete pickle; `ShortPickle` where they end too early.
        T2VError: where the budget is spent.
    """
    try:
        return _Interpreter(data, budget, functions or {}, persistent_load).run()
    except T2VError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, struct.error, ArithmeticError, RecursionError) as error:
        raise DamagedPickle(f"its pickle is damaged ({type(error).__name__}: {quoted(error)})") from error


class _Interpreter:
    def __init__(
        self,
        data: bytes | memoryview,
        budget: Budget,
        functions: dict[str, Callable[..., Any]],
        persistent_load: Callable[[Any], Any] | None,
    ) -> None:
        self.data, self.at, self.budget = memoryview(data), 0, budget
        self.functions, self.persistent_load = functions, persistent_load
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        data, end = self.data, len(self.data)
        done = 0
        while True:
            if done % _BATCH == 0:
                self.budget.spend("operations", _BATCH)
            done += 1
            if self.at >= end:
                raise ShortPickle
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop(), self.at
            if code in _VALUES:
                self.push(_VALUES[code](self))
            elif code in _ACTIONS:
                _ACTIONS[code](self)
            else:
                raise DamagedPickle(f"its pickle is damaged (unknown opcode {code:#04x})")

    # reading the bytes

    def take(self, count: int) -> memoryview:
        """Read so many bytes."""
        if count < 0:
            raise DamagedPickle("its pickle is damaged (a negative length)")
        if self.at + count > len(self.data):
            raise ShortPickle
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> Any:
        """Read one number of a format of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def long(self, size: int) -> int | Opaque:
        """Read a signed integer of so many bytes."""
        taken = self.take(size)
        return Opaque("number") if size > _LONGEST_NUMBER else int.from_bytes(taken, "little", signed=True)

    def line(self) -> str:
        """Read up to the end of the line."""
        for reach in (256, LONGEST_TEXT):
            rest = bytes(self.data[self.at : self.at + reach])
            length = rest.find(b"\n")
            if length >= 0:
                self.at += length + 1
                return rest[:length].decode("utf-8")
        raise DamagedPickle("its pickle is damaged (a line without an end)")

    def line_integer(self) -> int:
        """Read an integer of protocol 0, where "00" and "01" are False and True; a long one ends in "L"."""
        text = self.line()
        if len(text) > _LONGEST_NUMBER:
            raise DamagedPickle("its pickle is damaged (a number without an end)")
        return text == "01" if text in ("00", "01") else int(text.rstrip("L"))

    def text(self, count: int) -> str | Opaque:
        """Read a text of so many bytes."""
        taken = self.take(count)
        return Opaque("text") if count > LONGEST_TEXT else bytes(taken).decode("utf-8", "surrogatepass")

    def skip(self, count: int) -> Opaque:
        """Pass over so many bytes, which no reader of weights needs."""
        self.take(count)
        return Opaque("bytes")

    # the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the last value off the stack."""
        value = self.stack.pop()
        if value is _MARK:
            raise DamagedPickle("its pickle is damaged (a mark where a value should be)")
        return value

    def pop_two(self) -> tuple[Any, Any]:
        """Take the last two values off the stack, in the order in which they were pushed."""
        second = self.pop()
        return self.pop(), second

    def pop_to_mark(self) -> list[Any]:
        """Take the values after the last mark off the stack, and the mark."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise DamagedPickle("its pickle is damaged (no mark)")

    def memorise(self, index: int) -> None:
        """Note the last value, which stays on the stack, for later use."""
        if not 0 <= index < 1 << 32:  # greater numbers could be chosen so that their hashes are equal
            raise DamagedPickle("its pickle is damaged (an impossible number of a value)")
        self.memo[index] = self.stack[-1]

    # containers

    def append(self) -> None:
        """Append the last value to the list before it."""
        value = self.pop()
        if isinstance(self.stack[-1], list):
            self.stack[-1].append(value)

    def extend(self) -> None:
        """Append the values after the mark to the list before it."""
        items = self.pop_to_mark()
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def new_set(self) -> Opaque:
        self.pop_to_mark()
        return Opaque("set")

    def set_item(self) -> None:
        """Set one key of the dictionary before a key and its value."""
        pair = self.pop_two()
        self.fill(self.stack[-1], list(pair))

    def set_items(self) -> None:
        """Set the keys after the mark in the dictionary before it."""
        pairs = self.pop_to_mark()
        self.fill(self.stack[-1], pairs)

    def new_dictionary(self) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        self.fill(result, self.pop_to_mark())
        return result

    def fill(self, target: Any, pairs: list[Any]) -> None:
        """Set key, value, key, value … in a dictionary, where the key is a text; anything else stays as it is."""
        if len(pairs) % 2:
            raise DamagedPickle("its pickle is damaged (a key without a value)")
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                if isinstance(key, str):
                    target[key] = value

    def new_tuple(self, count: int) -> tuple[Any, ...]:
        """Make a tuple of the last values."""
        items = [self.pop() for _ in range(count)]
        return tuple(reversed(items))

    # classes and calls, of which only the names are used

    def call(self, function: Any, args: Any) -> Any:
        """Call the function in `functions` that stands for a global; where there is none, make an Opaque of its name."""
        if not isinstance(function, Global):
            return Opaque(function.name if isinstance(function, Opaque) else "call")
        known = self.functions.get(function.name)
        if known is None or not isinstance(args, tuple) or len(args) > _MOST_ARGUMENTS:
            return Opaque(function.name)
        self.budget.spend("values", sum(len(arg) for arg in args if isinstance(arg, (str, list, tuple, dict))))
        return known(*args)

    def reduce(self) -> Any:
        """Call a global with a tuple of arguments."""
        return self.call(*self.pop_two())

    def new_object_with_keywords(self) -> Any:
        self.pop()
        return self.reduce()

    def instance(self) -> Any:
        """Call a class that is named in two lines, with the values after the mark."""
        name = self.line_global()
        return self.call(name, tuple(self.pop_to_mark()))

    def instance_from_stack(self) -> Any:
        """Call the class after the mark with the values after it."""
        items = self.pop_to_mark()
        return self.call(items[0], tuple(items[1:]))

    def line_global(self) -> Global:
        """Read the module and the name of a global, a line each."""
        return Global(f"{self.line()}.{self.line()}")

    def stack_global(self) -> Global:
        """Make a global of the two texts on the stack."""
        module, name = self.pop_two()
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedPickle("its pickle is damaged (a class without a name)")
        return Global(f"{module}.{name}")

    def extension(self, size: int) -> Global:
        """Read a number of the registry of extensions, which stands for a class."""
        self.take(size)
        return Global("extension")

    def persistent(self, reference: Any) -> Any:
        return self.persistent_load(reference) if self.persistent_load else Opaque("persistent id")


def _by_code(table: dict[bytes, Callable[[_Interpreter], Any]]) -> dict[int, Callable[[_Interpreter], Any]]:
    return {code[0]: handler for code, handler in table.items()}


_NUMBERS: dict[bytes, Callable[[_Interpreter], Any]] = {
    b"N": lambda m: None,
    b"\x88": lambda m: True,
    b"\x89": lambda m: False,
    b"I": lambda m: m.line_integer(),
    b"L": lambda m: m.line_integer(),
    b"F": lambda m: float(m.line()),
    b"J": lambda m: m.number("<i"),
    b"K": lambda m: m.number("<B"),
    b"M": lambda m: m.number("<H"),
    b"G": lambda m: m.number(">d"),
    b"\x8a": lambda m: m.long(m.number("<B")),
    b"\x8b": lambda m: m.long(m.number("<i")),
}
_TEXTS: dict[bytes, Callable[[_Interpreter], Any]] = {
    b"S": lambda m: m.line().strip("'\""),
    b"V": lambda m: m.line(),
    b"U": lambda m: m.text(m.number("<B")),
    b"T": lambda m: m.text(m.number("<i")),
    b"X": lambda m: m.text(m.number("<I")),
    b"\x8c": lambda m: m.text(m.number("<B")),
    b"\x8d": lambda m: m.text(m.number("<Q")),
    b"C": lambda m: m.skip(m.number("<B")),
    b"B": lambda m: m.skip(m.number("<I")),
    b"\x8e": lambda m: m.skip(m.number("<Q")),
    b"\x96": lambda m: m.skip(m.number("<Q")),
}
_CONTAINERS: dict[bytes, Callable[[_Interpreter], Any]] = {
    b"]": lambda m: [],
    b"}": lambda m: {},
    b"\x8f": lambda m: Opaque("set"),
    b")": lambda m: (),
    b"l": lambda m: m.pop_to_mark(),
    b"d": lambda m: m.new_dictionary(),
    b"t": lambda m: tuple(m.pop_to_mark()),
    b"\x91": lambda m: m.new_set(),
    b"\x85": lambda m: m.new_tuple(1),
    b"\x86": lambda m: m.new_tuple(2),
    b"\x87": lambda m: m.new_tuple(3),
}
_REFERENCES: dict[bytes, Callable[[_Interpreter], Any]] = {
    b"2": lambda m: m.stack[-1],
    b"g": lambda m: m.memo[m.line_integer()],
    b"h": lambda m: m.memo[m.number("<B")],
    b"j": lambda m: m.memo[m.number("<I")],
    b"c": lambda m: m.line_global(),
    b"\x93": lambda m: m.stack_global(),
    b"R": lambda m: m.reduce(),
    b"\x81": lambda m: m.reduce(),
    b"\x92": lambda m: m.new_object_with_keywords(),
    b"i": lambda m: m.instance(),
    b"o": lambda m: m.instance_from_stack(),
    b"\x82": lambda m: m.extension(1),
    b"\x83": lambda m: m.extension(2),
    b"\x84": lambda m: m.extension(4),
    b"P": lambda m: m.persistent(m.line()),
    b"Q": lambda m: m.persistent(m.pop()),
}
_VALUES = _by_code(_NUMBERS | _TEXTS | _CONTAINERS | _REFERENCES)
"""Opcode -> the value that it pushes."""

_ACTIONS = _by_code(
    {
        b"\x80": lambda m: m.take(1),  # the protocol's number
        b"\x95": lambda m: m.take(8),  # a frame's length
        b"(": lambda m: m.stack.append(_MARK),
        b"0": lambda m: m.stack.pop(),
        b"1": lambda m: m.pop_to_mark(),
        b"a": lambda m: m.append(),
        b"e": lambda m: m.extend(),
        b"s": lambda m: m.set_item(),
        b"u": lambda m: m.set_items(),
        b"\x90": lambda m: m.pop_to_mark(),  # into a set
        b"p": lambda m: m.memorise(m.line_integer()),
        b"q": lambda m: m.memorise(m.number("<B")),
        b"r": lambda m: m.memorise(m.number("<I")),
        b"\x94": lambda m: m.memorise(len(m.memo)),
        b"b": lambda m: m.pop(),  # the state of an object, which is passed over
    }
)
"""Opcode -> what it does to the stack, the memo or the position."""
