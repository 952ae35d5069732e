"""Files of variable rate of every entropy model, decoded by an interpreter that knows nothing but them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rdc.bitstream import MAX_RATE_CODE, decode_image, encode_image
from rdc.checkpoint import model_hash, save_model
from rdc.evaluate import pixel_digest
from rdc.fresh_decode import decodes_alike
from rdc.metrics import to_8bit
from rdc.spec import component_names
from tests.rdc.shared import smooth_image
from tests.rdc.variable_rate import louder, restless, tiny

pytestmark = pytest.mark.full


@pytest.mark.parametrize(
    ("entropy_model", "precision"),
    [*((name, "fp32") for name in component_names("entropy_model")), ("mean_scale_hyperprior", "bf16")],
)
def test_another_interpreter_decodes_every_rate(entropy_model: str, precision: str, tmp_path: Path) -> None:
    depth = {"channels": [8, 8, 8], "latent_channels": 20}
    codec = restless(louder(tiny(entropy_model={"name": entropy_model}, depth=depth)))
    codec.set_transform_precision(precision)  # type: ignore[arg-type]
    # The file's codes, and not the one of the checkpoint, are what counts.
    save_model(tmp_path / "model.safetensors", codec, extra={"lmbda": 0.013, "precision": precision})
    key, files, digests = model_hash(codec), [], []
    for code in (0, 12_345, 28_136, 50_000, MAX_RATE_CODE):
        codec.rate_code = code
        files.append(encode_image(codec, smooth_image(), key))
        with torch.no_grad():
            digests.append(pixel_digest(to_8bit(decode_image(codec, files[-1], key))))
    assert len(set(files)) == len(files)
    answer = decodes_alike(tmp_path / "model.safetensors", files, digests, device="cpu", threads=1)
    assert answer == (True, None)
