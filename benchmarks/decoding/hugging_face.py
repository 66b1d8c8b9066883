"""Hugging Face's part of decoding.py: MarianMTModel with transloom's weights, in its environment.

python hugging_face.py FOLDER fp32|bf16 PART/PARTS

The sentences are divided into PARTS parts, of which this script translates one. It prints the
seconds, and each sentence's number with its best translation, as ids without BOS and EOS.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import MarianConfig, MarianMTModel  # type: ignore[import-not-found]

SENTENCES_PER_BATCH = 64


def load_model(folder: Path, settings: dict[str, object], precision: str) -> MarianMTModel:
    model = MarianMTModel(MarianConfig(**settings))
    missing, unexpected = model.load_state_dict(
        load_file(folder / "model.safetensors"), strict=False
    )
    computed = {
        f"model.{side}.embed_{kind}.weight"
        for side in ("encoder", "decoder")
        for kind in ("tokens", "positions")
    }
    assert not unexpected, unexpected
    assert set(missing) <= {*computed, "lm_head.weight"}, missing
    model.tie_weights()
    return model.eval().to(torch.bfloat16 if precision == "bf16" else torch.float32)


def main(folder: Path, precision: str, part: int, parts: int) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    model = load_model(folder, settings["model"], precision)
    pad, eos = model.config.pad_token_id, model.config.eos_token_id
    arrays = np.load(folder / "source.npz", allow_pickle=False)
    source = torch.from_numpy(arrays["source"])[part::parts]
    numbers = arrays["order"][part::parts].tolist()

    def translate(rows: torch.Tensor) -> list[list[int]]:
        rows = rows[:, : int((rows != pad).sum(dim=1).max())]
        outputs = model.generate(
            input_ids=rows, attention_mask=(rows != pad).long(), **settings["generate"]
        )
        return [[piece for piece in ids[1:] if piece not in (pad, eos)] for ids in outputs.tolist()]

    translate(source[: settings["warm_up_sentences"]])
    started = time.perf_counter()
    found = [ids for rows in source.split(SENTENCES_PER_BATCH) for ids in translate(rows)]
    seconds = time.perf_counter() - started
    translations = list(zip(numbers, found, strict=True))
    print(json.dumps({"seconds": seconds, "translations": translations}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *(int(number) for number in sys.argv[3].split("/")))
