#!/usr/bin/env bash
# bitsandbytes 0.50.2: a forward pass through `Linear4bit(compute_dtype=torch.bfloat16)` rounds the layer's own float32 bias to
# bfloat16 in place. Only the weight is quantised, and the bias is loaded, listed and saved as float32 until the first
# picture has been through; afterwards the parameter has another dtype and other values, so that the checkpoint that is
# saved then, or the adapter that is merged onto it, is not that of the model that was loaded.
#
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check bitsandbytes==0.50.2 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import bitsandbytes as bnb
import torch

print("bitsandbytes", bnb.__version__, "torch", torch.__version__)
seen = {}
for compute in (torch.float32, torch.bfloat16):
    layer = bnb.nn.Linear4bit(64, 8, quant_type="nf4", compute_dtype=compute)
    with torch.no_grad():
        layer.bias.copy_(1 + torch.arange(8) / 1000)  # 1.001 and so on: bfloat16 has steps of 0.0078 there
    layer.to("cpu")
    loaded = layer.bias.detach().clone()
    with torch.no_grad():
        layer(torch.ones(2, 64))
    after = layer.bias.detach()
    seen[compute] = (after.dtype, float((after.float() - loaded).abs().max()))
    print(f"compute_dtype {compute}: bias was {loaded.dtype}, is {after.dtype}, moved by {seen[compute][1]:.4f}")
kept = seen[torch.float32] == (torch.float32, 0.0)
rounded = seen[torch.bfloat16][0] == torch.bfloat16 and seen[torch.bfloat16][1] > 0.003
print("as described" if kept and rounded else "changed")
sys.exit(0 if kept and rounded else 1)
PY
