"""Copies that a model makes of its modules while a pass runs: they come out as if there had been no pass.

A detector may predict with a fused copy of itself, an averaged or a momentum model begins as one. Such a copy would
keep what a pass hangs on a module, and the eval mode that lasts only as long as the pass. So during a pass a module
carries two attributes of its own, which `copy` and `pickle` look up: `__deepcopy__` takes note of the copy that was
made, `__getstate__` leaves out what belongs to the pass.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_OURS = ("__deepcopy__", "__getstate__", "train")
_TABLES = ("_forward_hooks", "_forward_pre_hooks")
_MARKS = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")


class PassHook:
    """A hook of a pass: it runs in the thread that made it, or in any, until it is over, and is left out of copies.

    Args:
        function: called with what torch calls the hook with, the module first.
        elsewhere: called with the module instead where it runs in another thread.
    """

    def __init__(self, function: Callable[..., Any], elsewhere: Callable[[nn.Module], None] | None = None) -> None:
        self.function = function
        self.elsewhere = elsewhere
        self.thread = threading.get_ident()
        self.any_thread = False
        self.is_over = False

    def __call__(self, module: nn.Module, *seen: Any) -> Any:
        if self.is_over:
            return None
        if self.any_thread or threading.get_ident() == self.thread:
            return self.function(module, *seen)
        return None if self.elsewhere is None else self.elsewhere(module)

    def __deepcopy__(self, memo: dict[int, Any]) -> PassHook:
        twin = PassHook(_nothing)  # which holds nothing of the pass
        twin.is_over = True
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        # In what is unpickled, a function of the standard library that does nothing stands for it.
        return getattr, (contextlib.nullcontext(), "__exit__")


class _Watch:
    """Both of our attributes of a module: each pass makes one for every module.

    Args:
        copies: of the pass.
        module: that carries it.
    """

    __slots__ = ("copies", "module")

    def __init__(self, copies: Copies, module: nn.Module) -> None:
        self.copies = copies
        self.module = module

    def __call__(self, *memo: dict[int, Any]) -> Any:
        """Copy the module, where a memo is given, as `__deepcopy__` does; or return its state."""
        return self.copies.deepcopy(self.module, *memo) if memo else self.copies.state(self.module)


class Copies:
    """Takes note of the copies of some modules.

    Args:
        flags: module -> its training flag, which a copy gets when the pass is over.
    """

    def __init__(self, flags: Mapping[nn.Module, bool]) -> None:
        self.flags = dict(flags)
        self.made: dict[nn.Module, nn.Module] = {}
        self._watched: list[dict[str, Any]] = []
        self._on_purpose: set[nn.Module] = set()
        self._lock = threading.Lock()
        self._is_over = False
        self._watch(self.flags)

    def _watch(self, modules: Iterable[nn.Module]) -> None:
        """Hang our attributes on modules, but not over those of the model's own."""
        for module in modules:
            own = vars(module)
            if "__deepcopy__" not in own and "__getstate__" not in own:
                own["__deepcopy__"] = own["__getstate__"] = _Watch(self, module)
                self._watched.append(own)

    def close(self) -> None:
        """Forget the modules and their copies, which get the training flags of what they are copies of."""
        with self._lock:
            self._is_over = True
            for own in self._watched:
                own.pop("__deepcopy__", None)
                own.pop("__getstate__", None)
            for twin, original in self.made.items():
                self._take_off(twin)
                flag = self._flag_of(original)
                if twin not in self._on_purpose and getattr(twin, "training", flag) != flag:
                    twin.training = flag

    def _flag_of(self, module: nn.Module) -> bool:
        """Return the training flag from before the pass of a module, or of what it is a copy of."""
        while module not in self.flags:
            module = self.made[module]
        return self.flags[module]

    def deepcopy(self, module: nn.Module, memo: dict[int, Any]) -> nn.Module:
        """Return what `copy.deepcopy` takes for the copy of a module, and take note of it."""
        if _is_copied_as_usual(type(module)):
            twin = self._reconstructed(module, memo)
        else:
            ours = self._take_off(module)
            try:
                twin = copy.deepcopy(module, memo)
            finally:
                with self._lock:
                    if not self._is_over:
                        vars(module).update(ours)
        if twin is not module:
            keys = _hooks_of_a_pass(twin)
            for table in (*_TABLES, *_MARKS) if keys else ():
                held = vars(twin).get(table, {})
                for key in keys if held is not vars(module).get(table) else ():
                    held.pop(key, None)
        with self._lock:
            if twin is not module and not self._is_over:
                self.made[twin] = module
                self._watch([twin])
                if self._flag_of(module) and "train" not in vars(twin):
                    vars(twin)["train"] = functools.partial(self._train, twin)
        return twin

    def _reconstructed(self, module: nn.Module, memo: dict[int, Any]) -> nn.Module:
        """Copy a module as `copy.deepcopy` does, without what is ours.

        It stays on the module meanwhile: another thread that copies the same model then has to find it.
        """
        twin: nn.Module = type(module).__new__(type(module))
        memo[id(module)] = twin
        of_class = getattr(type(module), "__getstate__", None)
        held = dict(vars(module)) if of_class is None else of_class(module)
        state = {name: value for name, value in held.items() if not _is_ours(value, self)}
        twin.__setstate__(copy.deepcopy(state, memo))  # type: ignore[no-untyped-call]
        return twin

    def _take_off(self, module: nn.Module) -> dict[str, Any]:
        """Remove our attributes from a module, and return them."""
        own = vars(module)
        return {name: own.pop(name) for name in _OURS if name in own and _is_ours(own[name], self)}

    def state(self, module: nn.Module) -> Any:
        """Return what `copy.copy` and `pickle` take of a module: without what belongs to the pass."""
        of_class = getattr(type(module), "__getstate__", None)  # before Python 3.11 only where a class defines it
        state = vars(module) if of_class is None else of_class(module)
        if not isinstance(state, dict):
            return state
        state = {name: value for name, value in state.items() if not _is_ours(value, self)}
        if "training" in state:
            state["training"] = self._flag_of(module)
        keys = _hooks_of_a_pass(module)
        for table in (*_TABLES, *_MARKS) if keys else ():
            if isinstance(state.get(table), dict):
                held = state[table]
                state[table] = type(held)((key, value) for key, value in held.items() if key not in keys)
        return state

    def _train(self, twin: nn.Module, mode: bool = True) -> nn.Module:
        """Set the mode of a copy, as `train()` and `eval()` do: what the model sets on purpose stays."""
        self._on_purpose.add(twin)
        return type(twin).train(twin, mode)


def _is_copied_as_usual(kind: type[nn.Module]) -> bool:
    """Check whether a class leaves it to `copy.deepcopy` how its modules are copied."""
    if hasattr(kind, "__deepcopy__") or hasattr(kind, "__getnewargs__") or hasattr(kind, "__getnewargs_ex__"):
        return False
    from torch import nn

    usual = {getattr(each, "__getstate__", None) for each in (object, nn.Module)}
    plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    return plain and getattr(kind, "__getstate__", None) in usual


def _nothing(*seen: Any) -> None:
    """Stand in the place of a hook."""


def _is_ours(value: Any, copies: Copies) -> bool:
    if type(value) is _Watch:
        return value.copies is copies
    return isinstance(value, functools.partial) and getattr(value.func, "__self__", None) is copies


def _hooks_of_a_pass(module: nn.Module) -> list[int]:
    """Return the keys of the hooks that passes have hung on a module."""
    return [key for table in _TABLES for key, hook in vars(module).get(table, {}).items() if isinstance(hook, PassHook)]
