"""Write the weighted mean of the weights of two models of one lineage: better than either where both are good.

Usage: python bench/measure/average_weights.py EARLIER.safetensors LATER.safetensors SHARE_OF_LATER OUTPUT.safetensors

Grey levels shift by a few of 255: train on for some minutes afterwards.
"""

from __future__ import annotations

import sys

from emsr_fast import load_model, save_model


def main() -> None:
    earlier, later = (load_model(path, device="cpu") for path in sys.argv[1:3])
    share = float(sys.argv[3])
    before, after = earlier.state_dict(), later.state_dict()
    later.load_state_dict({name: (1 - share) * before[name] + share * after[name] for name in after})
    mixed = {"steps": earlier.card.training["steps"], "share": round(1 - share, 3)}
    later.card = later.card.model_copy(update={"training": {**later.card.training, "averaged_with_stage": mixed}})
    save_model(later, sys.argv[4])


if __name__ == "__main__":
    main()
