"""The base of what is written for others to read: recipes, manifests, records, headers."""

from pydantic import BaseModel, ConfigDict


class Written(BaseModel):
    """A frozen part of a file format: unknown keys fail, and so do infinite numbers and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
