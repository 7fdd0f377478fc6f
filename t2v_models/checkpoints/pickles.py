"""Read a pickle without running it: a small interpreter that builds plain containers and descriptions of tensors.

Python's own unpickler imports and calls whatever the file names. This one knows the opcodes, and a handful of functions
that PyTorch uses to write tensors; any other class or function becomes an inert `Opaque`, calls to it give another
`Opaque`, and nothing of the file is ever executed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ..errors import T2VError

MAX_OPERATIONS = 50_000_000
"""A model of the family needs some 100,000; a Lightning checkpoint with its optimiser a few millions."""


class DamagedPickle(T2VError):
    """The bytes are no complete pickle; `read_tensors` turns it into an error that names the file."""


class Opaque:
    """What stands for anything that is neither a tensor nor a plain container."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Global(Opaque):
    """A reference to a class or function by its name; not imported."""


_MARK = object()
_PLAIN = (str, bytes, int, float, type(None))
"""What may be a key or a set's member; hashing a tuple nested a million deep would end the process."""


def load(
    data: bytes | memoryview,
    start: int = 0,
    *,
    functions: dict[str, Callable[..., Any]] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Interpret the pickle at `data[start:]`; returns the object and the position after it.

    `functions` maps "module.name" to what a call of that global gives; all are ours.
    """
    try:
        return _Interpreter(data, start, functions or {}, persistent_load).run()
    except DamagedPickle:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error, OverflowError) as error:
        raise DamagedPickle(f"its pickle is damaged ({type(error).__name__}: {error})") from error


class _Interpreter:
    def __init__(
        self,
        data: bytes | memoryview,
        start: int,
        functions: dict[str, Callable[..., Any]],
        persistent_load: Callable[[Any], Any] | None,
    ) -> None:
        self.data, self.at = memoryview(data), start
        self.functions, self.persistent_load = functions, persistent_load
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        data, end = self.data, len(self.data)
        for _ in range(MAX_OPERATIONS):
            if self.at >= end:
                raise DamagedPickle("its pickle ends too early: the file is truncated")
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop(), self.at
            handler = _HANDLERS.get(code)
            if handler is None:
                raise DamagedPickle(f"its pickle is damaged (unknown opcode {code:#04x})")
            handler(self)
        raise DamagedPickle("its pickle never ends")

    # reading

    def take(self, count: int) -> memoryview:
        if count < 0 or self.at + count > len(self.data):
            raise DamagedPickle("its pickle ends too early: the file is truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        rest = bytes(self.data[self.at : self.at + 65536])
        length = rest.find(b"\n")
        if length < 0:
            raise DamagedPickle("its pickle is damaged (a line without an end)")
        self.at += length + 1
        return rest[:length].decode("utf-8")

    def text(self, count: int) -> str:
        return bytes(self.take(count)).decode("utf-8", "surrogatepass")

    # the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise DamagedPickle("its pickle is damaged (a mark where a value should be)")
        return value

    def pop_to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise DamagedPickle("its pickle is damaged (no mark)")

    def find(self, module: str, name: str) -> Any:
        return Global(f"{module}.{name}")

    def call(self, function: Any, args: Any) -> Any:
        """What calling `function` gives: ours where it is one we know, else an Opaque of the same name."""
        if not isinstance(function, Global):
            return Opaque(function.name if isinstance(function, Opaque) else "call")
        known = self.functions.get(function.name)
        if known is None or not isinstance(args, tuple):
            return Opaque(function.name)
        return known(*args)

    def fill(self, target: Any, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise DamagedPickle("its pickle is damaged (a key without a value)")
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                if isinstance(key, _PLAIN):
                    target[key] = value


def _handlers() -> dict[int, Callable[[_Interpreter], None]]:
    H: dict[int, Callable[[_Interpreter], None]] = {}

    def op(code: bytes, handler: Callable[[_Interpreter], Any]) -> None:
        H[code[0]] = handler

    def pushes(code: bytes, value: Callable[[_Interpreter], Any]) -> None:
        op(code, lambda m: m.push(value(m)))

    def line_int(m: _Interpreter) -> Any:
        text = m.line()
        return {"00": False, "01": True}[text] if text in ("00", "01") else int(text)

    def quoted(m: _Interpreter) -> str:
        return m.line().strip("'\"")

    def pop_twice(m: _Interpreter) -> tuple[Any, Any]:
        second = m.pop()
        return m.pop(), second

    def append(m: _Interpreter) -> None:
        value = m.pop()
        if isinstance(m.stack[-1], list):
            m.stack[-1].append(value)

    def appends(m: _Interpreter) -> None:
        items = m.pop_to_mark()
        if isinstance(m.stack[-1], list):
            m.stack[-1].extend(items)

    def add_items(m: _Interpreter) -> None:
        items = m.pop_to_mark()
        if isinstance(m.stack[-1], set):
            m.stack[-1].update(item for item in items if isinstance(item, _PLAIN))

    def set_item(m: _Interpreter) -> None:
        key, value = pop_twice(m)
        m.fill(m.stack[-1], [key, value])

    def set_items(m: _Interpreter) -> None:
        pairs = m.pop_to_mark()
        m.fill(m.stack[-1], pairs)

    def dictionary(m: _Interpreter) -> dict:
        result: dict = {}
        m.fill(result, m.pop_to_mark())
        return result

    def tuple_of(count: int) -> Callable[[_Interpreter], tuple]:
        def make(m: _Interpreter) -> tuple:
            items = [m.pop() for _ in range(count)]
            return tuple(reversed(items))

        return make

    def put(index: Callable[[_Interpreter], int]) -> Callable[[_Interpreter], None]:
        def store(m: _Interpreter) -> None:
            m.memo[index(m)] = m.stack[-1]

        return store

    def reduce(m: _Interpreter) -> Any:
        function, args = pop_twice(m)
        return m.call(function, args)

    def new_object_with_keywords(m: _Interpreter) -> Any:
        m.pop()
        return reduce(m)

    def instance(m: _Interpreter) -> Any:
        module, name = m.line(), m.line()
        return m.call(m.find(module, name), tuple(m.pop_to_mark()))

    def instance_from_stack(m: _Interpreter) -> Any:
        items = m.pop_to_mark()
        return m.call(items[0], tuple(items[1:]))

    def stack_global(m: _Interpreter) -> Any:
        module, name = pop_twice(m)
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedPickle("its pickle is damaged (a class without a name)")
        return m.find(module, name)

    def persistent(m: _Interpreter, reference: Any) -> Any:
        return m.persistent_load(reference) if m.persistent_load else Opaque("persistent id")

    op(b"\x80", lambda m: m.take(1))  # PROTO
    op(b"\x95", lambda m: m.take(8))  # FRAME
    op(b"(", lambda m: m.stack.append(_MARK))
    op(b"0", lambda m: m.stack.pop())
    op(b"1", lambda m: m.pop_to_mark())
    op(b"2", lambda m: m.push(m.stack[-1]))
    for code, constant in ((b"N", None), (b"\x88", True), (b"\x89", False), (b")", ())):
        pushes(code, lambda m, constant=constant: constant)
    pushes(b"]", lambda m: [])
    pushes(b"}", lambda m: {})
    pushes(b"\x8f", lambda m: set())
    # numbers
    pushes(b"I", line_int)
    pushes(b"L", lambda m: int(m.line().rstrip("L")))
    pushes(b"F", lambda m: float(m.line()))
    pushes(b"J", lambda m: m.integer("<i"))
    pushes(b"K", lambda m: m.integer("<B"))
    pushes(b"M", lambda m: m.integer("<H"))
    pushes(b"G", lambda m: m.integer(">d"))
    pushes(b"\x8a", lambda m: int.from_bytes(m.take(m.integer("<B")), "little", signed=True))
    pushes(b"\x8b", lambda m: int.from_bytes(m.take(m.integer("<i")), "little", signed=True))
    # strings and bytes
    pushes(b"S", quoted)
    pushes(b"V", lambda m: m.line())
    pushes(b"U", lambda m: m.text(m.integer("<B")))
    pushes(b"T", lambda m: m.text(m.integer("<i")))
    pushes(b"X", lambda m: m.text(m.integer("<I")))
    pushes(b"\x8c", lambda m: m.text(m.integer("<B")))
    pushes(b"\x8d", lambda m: m.text(m.integer("<Q")))
    pushes(b"C", lambda m: bytes(m.take(m.integer("<B"))))
    pushes(b"B", lambda m: bytes(m.take(m.integer("<I"))))
    pushes(b"\x8e", lambda m: bytes(m.take(m.integer("<Q"))))
    pushes(b"\x96", lambda m: bytes(m.take(m.integer("<Q"))))
    # containers
    op(b"a", append)
    op(b"e", appends)
    op(b"s", set_item)
    op(b"u", set_items)
    op(b"\x90", add_items)
    pushes(b"l", lambda m: m.pop_to_mark())
    pushes(b"d", dictionary)
    pushes(b"t", lambda m: tuple(m.pop_to_mark()))
    pushes(b"\x91", lambda m: {item for item in m.pop_to_mark() if isinstance(item, _PLAIN)})
    pushes(b"\x85", tuple_of(1))
    pushes(b"\x86", tuple_of(2))
    pushes(b"\x87", tuple_of(3))
    # the memo
    op(b"p", put(lambda m: int(m.line())))
    op(b"q", put(lambda m: m.integer("<B")))
    op(b"r", put(lambda m: m.integer("<I")))
    op(b"\x94", put(lambda m: len(m.memo)))
    pushes(b"g", lambda m: m.memo[int(m.line())])
    pushes(b"h", lambda m: m.memo[m.integer("<B")])
    pushes(b"j", lambda m: m.memo[m.integer("<I")])
    # classes and calls: names only
    pushes(b"c", lambda m: m.find(m.line(), m.line()))
    pushes(b"\x93", stack_global)
    pushes(b"R", reduce)
    pushes(b"\x81", reduce)
    pushes(b"\x92", new_object_with_keywords)
    pushes(b"i", instance)
    pushes(b"o", instance_from_stack)
    op(b"b", lambda m: m.pop())  # BUILD: the state of an object is not looked at
    for code in (b"\x82", b"\x83", b"\x84"):  # extension registry
        size = {b"\x82": 1, b"\x83": 2, b"\x84": 4}[code]
        pushes(code, lambda m, size=size: (m.take(size), Global("extension"))[1])
    pushes(b"P", lambda m: persistent(m, m.line()))
    pushes(b"Q", lambda m: persistent(m, m.pop()))
    return H


_HANDLERS = _handlers()
