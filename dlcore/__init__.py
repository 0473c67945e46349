"""A functional deep-learning training framework on JAX; CONTRIBUTING.md maps its packages."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from dlcore.launch.loading import load as load


def __getattr__(name: str) -> Any:
    # `dlcore.load` needs all rooms, which `import dlcore` should not pay for.
    if name == "load":
        from dlcore.launch.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
