"""What is written for others to read (manifests, records, checkpoint headers) has a class."""

from pydantic import BaseModel, ConfigDict


class Written(BaseModel):
    """A piece of a file format: unknown keys fail, no number is infinite or NaN, nothing changes
    it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
