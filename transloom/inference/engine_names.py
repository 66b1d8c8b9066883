"""The names of engines and of the numbers that they compute in; nothing is imported with them."""

from enum import StrEnum


class Engine(StrEnum):
    """What finds hypotheses."""

    TORCH = "torch"
    CTRANSLATE2 = "ctranslate2"


class ComputeType(StrEnum):
    """What CTranslate2 multiplies in, or stores weights in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT16 = "int16"
    INT8 = "int8"
    INT8_FLOAT32 = "int8_float32"
    INT8_FLOAT16 = "int8_float16"
    INT8_BFLOAT16 = "int8_bfloat16"
