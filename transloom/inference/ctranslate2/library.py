"""The library itself, an extra (`transloom[ctranslate2]`) that is imported when it is needed."""

from typing import Any

from trainer.errors import EngineError
from transloom.inference.engine_names import ComputeType


def library() -> Any:
    """The module `ctranslate2`.

    Raises:
        EngineError: it is not installed.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise EngineError(
            f"CTranslate2 cannot be used here ({error}). Install it with: pip install "
            "'transloom[ctranslate2]'; or leave out --engine, so that transloom translates"
        ) from error
    return ctranslate2


def specifications() -> Any:
    """The module `ctranslate2.specs`, the form of its models.

    Raises:
        EngineError: the library is not installed.
    """
    library()
    import ctranslate2.specs

    return ctranslate2.specs


def require_compute_type(wanted: ComputeType) -> None:
    """Check that this machine's CPU can do it.

    Raises:
        EngineError: it cannot, or the library is not installed.
    """
    possible = sorted(library().get_supported_compute_types("cpu"))
    if wanted not in possible:
        raise EngineError(
            f"--compute-type is {wanted}, and CTranslate2 has on this CPU {', '.join(possible)}. "
            "Name one of these"
        )
