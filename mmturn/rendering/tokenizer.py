"""Loading a model's tokenizer from its folder."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmturn.errors import CheckpointError


def load_tokenizer(model_dir: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder, from its files alone: offline, without code of the folder.

    Raises CheckpointError when the folder has none or it cannot be read.
    """
    folder = Path(model_dir)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(f"{folder}: there is no tokenizer.json (nor vocab.json with merges.txt)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the libraries raise many kinds, down to a bare Exception from the Rust side
        raise CheckpointError(f"{folder}: the tokenizer cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        raise CheckpointError(f"{folder}: a fast tokenizer (tokenizer.json) is needed, got {type(tokenizer).__name__}")
    return tokenizer
