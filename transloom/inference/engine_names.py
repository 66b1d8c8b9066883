"""Names of engines and of their number formats; this module imports no engine."""

from enum import StrEnum
from typing import Literal

Precision = Literal["fp32", "bf16"]  # number format of the weights and activations in torch


class Engine(StrEnum):
    """Library that searches for hypotheses."""

    TORCH = "torch"
    CTRANSLATE2 = "ctranslate2"


class ComputeType(StrEnum):
    """Number format in which CTranslate2 multiplies or stores weights."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT16 = "int16"
    INT8 = "int8"
    INT8_FLOAT32 = "int8_float32"
    INT8_FLOAT16 = "int8_float16"
    INT8_BFLOAT16 = "int8_bfloat16"
