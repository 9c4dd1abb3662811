"""`examples/make_model.py`: what it does when it is started twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
# Its own `main`, with a model that is made at once, and a line for each time that one is made.
SCRIPT = """
import sys, time
sys.path.insert(0, {examples!r})
import make_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from tokenizers import Tokenizer, models

def tiny(folder):
    with open({log!r}, "a") as file:
        file.write("made\\n")
    time.sleep(1)
    sizes = dict(vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    config = LlamaConfig(**sizes)
    return LlamaForCausalLM(config), PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))

make_model.FAMILIES["smollm2"] = tiny
make_model.main()
"""


def test_two_at_once_make_one_model(tmp_path: Path) -> None:
    log, model = tmp_path / "log", tmp_path / "new" / "model"
    script = SCRIPT.format(examples=str(EXAMPLES), log=str(log))
    both = [subprocess.Popen([sys.executable, "-c", script, "--output_dir", str(model)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert log.read_text() == "made\n"
    assert [path.name for path in model.parent.iterdir()] == ["model"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in model.iterdir()}


# As on Python 3.10, where it has no package whose files alone tell the import name.
WITHOUT_IMPORT_NAMES = """
import importlib.metadata, sys
importlib.metadata.packages_distributions = dict
sys.path.insert(0, {examples!r})
import make_model
make_model.say_gguf_version()
from transformers.utils import is_gguf_available
assert is_gguf_available()
"""


def test_gguf_files_are_read_where_python_does_not_know_the_package() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_IMPORT_NAMES.format(examples=str(EXAMPLES))], check=True)
