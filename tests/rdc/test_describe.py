"""What `rdc describe` adds to operations: activation memory by hand, serial steps, and both as JSON."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import nn

import conf
from rdc.__main__ import main
from rdc.activations import LiveBytes
from rdc.complexity import count, measure
from rdc.configured import model_of


def peak_bytes(module: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad():
        return count(lambda: module(x), {"all": module}).activation_bytes["all"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_peak_by_hand(device: str) -> None:
    # On 64 positions in fp32: x 768 bytes, the first convolution's output 1024, the rectified copy 1024, the
    # last output 512. While ReLU runs, x (the caller's) and both sides of it are alive: 2816.
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    x = torch.zeros(1, 3, 8, 8, device=device)
    assert peak_bytes(layers.to(device), x) == 768 + 2 * 1024
    # In place, the peak is the last convolution or the first: x + 1024 + 512.
    layers[1] = nn.ReLU(inplace=True)
    assert peak_bytes(layers, x) == 768 + 1024 + 512


class Residual(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x[:, :1]  # a view: no bytes of its own
        return x.relu().neg() + kept


def test_views_share_their_bytes_and_freed_ones_are_forgotten() -> None:
    # x, the rectified tensor and its negative at once; the sum comes when the rectified one is gone.
    x = torch.zeros(1, 4, 8, 8)
    assert peak_bytes(Residual(), x) == 3 * 1024
    live = LiveBytes([x])
    tensors = [torch.zeros(16), torch.zeros(8)]
    live.saw((tensors, {"again": tensors[0][:4], "left out": x}))
    assert live.now == 96
    del tensors[0]
    assert live.now == 32


def test_weights_are_no_activations() -> None:
    wide = nn.Conv2d(1, 1, 63, padding=31)
    assert peak_bytes(wide, torch.zeros(1, 1, 4, 4)) == 2 * 64


def test_memory_grows_with_the_image_and_is_that_of_the_largest_part() -> None:
    spec = model_of(conf.compose(["model=rdc_g", "width=0.25"]))
    small, large = measure(spec, 64, 64).to_dict(), measure(spec, 128, 64).to_dict()
    for direction, heaviest in (("decode", "g_s"), ("encode", "g_a")):
        memory = small["activation_bytes"][direction]
        assert memory["peak"] == memory["parts"][heaviest] == max(memory["parts"].values())
        assert large["activation_bytes"][direction]["peak"] == pytest.approx(2 * memory["peak"], rel=0.02)


def test_a_hyperprior_needs_one_pass_per_network() -> None:
    steps = measure(model_of(conf.compose(["model=rdc_g", "width=0.1"])), 64, 64).to_dict()["serial_steps"]
    assert steps["decode"]["total"] == 2
    assert {part for part, n in steps["decode"]["parts"].items() if n} == {"h_s", "g_s"}
    assert steps["encode"]["total"] == 3


@pytest.mark.parametrize(
    ("preset", "context"),
    [
        # The positions of y that one masked 5x5 may see differ in j + 3 i: 0 to 11 + 3 * 7 are 33 diagonals.
        ("joint_autoregressive", 33),
        # Five slices that later ones see come one by one; the other five see those five only: one step.
        ("charm", 6),
        ("rdc_b", 6),
        # Each of ten slices sees all before it.
        ("conv_charm", 10),
        # Five groups, each in two halves of a chessboard.
        ("elic", 10),
    ],
)
def test_passes_that_wait_for_each_other_by_hand(preset: str, context: int) -> None:
    # 100x170 pixels are padded to 128x192: y has 8 rows and 12 columns.
    described = measure(model_of(conf.compose([f"model={preset}", "width=0.1"])), 100, 170).to_dict()
    encode, decode = (described["serial_steps"][direction] for direction in ("encode", "decode"))
    once = {"g_a": 1, "h_a": 1, "prior": 0, "h_s": 1}
    assert encode == {"total": 3 + context, "parts": {**once, "context": context, "g_s": 0}}
    assert decode["parts"] == {"g_a": 0, "h_a": 0, "prior": 0, "h_s": 1, "context": context, "g_s": 1}
    assert decode["total"] == 2 + context


def columns(line: str) -> list[float]:
    return [float(cell.replace(",", "")) for cell in line.split()[1:]]


@pytest.mark.parametrize("preset", ["rdc_b", "rdc_g", "joint_autoregressive"])
def test_printed_parts_sum_to_the_printed_total(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", f"model={preset}", "width=0.25", "--size", "64x64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(("decode", "encode"))]
    assert len(starts) == 2
    for start in starts:
        rows = list(itertools.takewhile(lambda line: line.startswith("  "), lines[start + 1 :]))
        assert "prior" in {row.split()[0] for row in rows}
        *rates, memory, steps, params = columns(lines[start])
        *of_parts, memories, all_steps, all_params = zip(*map(columns, rows), strict=True)
        # Rates are printed to a thousandth, which every part may be half of off.
        assert [sum(values) for values in of_parts] == pytest.approx(rates, abs=0.0005 * (len(rows) + 1))
        assert (max(memories), sum(all_steps), sum(all_params)) == (memory, steps, params)
        assert f"parameters: {params:,.0f} (" in lines[-1]


def test_describe_prints_them_and_takes_a_width(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "model=rdc_g", "width=0.25", "--size", "64x64"]) == 0
    text = capsys.readouterr().out
    for word in ("activations", "MB", "serial", "steps"):
        assert word in text
    assert main(["describe", "model=rdc_g", "width=0.25", "--size", "64x64", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert set(described["activation_bytes"]["decode"]["parts"]) == set(described["parts"])
    assert described["serial_steps"]["decode"]["total"] == 2


def test_gates_are_counted_open_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = []
    for gating in ("none", "ecg"):
        assert main(["describe", "model=scale_hyperprior", "width=0.1", f"gating={gating}", "--json"]) == 0
        counts.append(json.loads(capsys.readouterr().out))
    assert counts[0]["decode"] == counts[1]["decode"]
    assert counts[1]["gating"] == "ecg"
    assert main(["describe", "model=scale_hyperprior", "width=0.1", "gating=ecg"]) == 0
    assert "gating=ecg: counted with every channel open" in capsys.readouterr().out
