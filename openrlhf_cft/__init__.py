"""Critical Token Fine-tuning (arXiv 2510.10974) as a plugin of stock OpenRLHF.

Two halves meet only in a file: `annotate` (Ray, vLLM) writes an annotated data set, `train` (DeepSpeed, OpenRLHF)
reads it. Importing this package, `data.records` or `verify` pulls in neither torch nor vllm nor ray.
"""

__version__ = "0.1.0"
