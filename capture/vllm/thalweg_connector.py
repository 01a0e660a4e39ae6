"""Residuals of vLLM requests, written as safetensors files into a directory that server and client share.

Used with vLLM's speculative method `extract_hidden_states`, which keeps the residual stream of every prompt token in
a paged cache beside keys and values. When a request is done, this connector copies its pages to the host and writes

    hidden_states [Pos, state, DModel]   in the server's dtype; state k is the residual after k blocks
    token_ids     [Pos]                  int64

The answer names the file (a plain name, so that the directory may be mounted elsewhere on the client). It appears
under that name when it is whole, or `<name>.error` does, with a line that says why. The client deletes what it read;
files of clients that died are removed here after 15 minutes.

`cargo capture serve` writes this file out and starts vLLM with it. It opens no network port and reads nothing.
"""

import os
import re
import threading
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file
from vllm.config import get_layers_from_vllm_config
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, SupportsHMA
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.logger import init_logger
from vllm.model_executor.models.extract_hidden_states import CacheOnlyAttentionLayer
from vllm.v1.kv_cache_interface import HiddenStateCacheSpec

log = init_logger("vllm.thalweg")

FORMAT = "thalweg residuals 1"
OURS = re.compile(r"thalweg-[0-9a-f]{32}\.safetensors(\.error)?(\.partial)?")
KEPT = 15 * 60  # seconds
WRITERS = 4
QUEUED = 16  # files in memory at most: a slow disk holds the engine back


@dataclass
class Finished:
    """A request whose residuals are to be written: where they lie, and the file's name."""

    request: str
    name: str
    token_ids: list[int]
    blocks: list[int]


@dataclass
class Work(KVConnectorMetadata):
    """What the scheduler hands to the workers with a step."""

    finished: list[Finished] = field(default_factory=list)


class ThalwegConnector(KVConnectorBase_V1, SupportsHMA):
    """Stores only: nothing is ever loaded into vLLM's cache."""

    def __init__(self, vllm_config, role, kv_cache_config):
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        speculative = vllm_config.speculative_config
        if speculative is None or speculative.method != "extract_hidden_states":
            raise ValueError("ThalwegConnector needs the speculative method extract_hidden_states")
        layers = speculative.draft_model_config.hf_config.eagle_aux_hidden_state_layer_ids
        if list(layers) != sorted(set(layers)):
            raise ValueError(f"layer ids must ascend, found {layers}: vLLM sorts them")
        self.shared = self._kv_transfer_config.get_from_extra_config("shared", None)
        if not self.shared or not os.path.isdir(self.shared):
            raise ValueError(f"kv_connector_extra_config.shared must be a directory, found {self.shared!r}")
        self.notes = {
            "format": FORMAT,
            "layers": ",".join(str(layer) for layer in layers),
            "n_layers": str(vllm_config.model_config.get_total_num_hidden_layers()),
            "model": served_name(vllm_config.model_config),
            "steering": "vllm-lens" if steers(vllm_config) else "none",
        }
        if steers(vllm_config) and vllm_config.cache_config.enable_prefix_caching:
            # Pages of a steered prompt would be taken for those of the plain one.
            raise ValueError("steering through vllm-lens needs --no-enable-prefix-caching")
        self.group = group_of_states(kv_cache_config)
        self.pending = []  # scheduler's side
        self.states = None  # worker's side: [block, state, place in block, DModel]
        self.writers = None
        self.writing = deque()
        self.swept = 0.0
        self.sweeping = threading.Lock()

    # The scheduler's side: one process, knows requests and their blocks.

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        return 0, False

    def update_state_after_alloc(self, request, blocks, num_external_tokens):
        pass

    def build_connector_meta(self, scheduler_output):
        work, self.pending = Work(self.pending), []
        return work

    def request_finished_all_groups(self, request, block_ids):
        """Holds the blocks of a request that ran to its end until a worker has copied them."""
        ended = request.status.name in ("FINISHED_STOPPED", "FINISHED_LENGTH_CAPPED")
        if not ended or self.group >= len(block_ids) or not request.prompt_token_ids:
            return False, None  # aborted: nobody waits for its file
        name = f"thalweg-{uuid.uuid4().hex}.safetensors"
        ids, blocks = list(request.prompt_token_ids), list(block_ids[self.group])
        self.pending.append(Finished(request.request_id, name, ids, blocks))
        return True, {"hidden_states_path": name}

    def request_finished(self, request, block_ids):
        return self.request_finished_all_groups(request, (block_ids,))

    # The workers' side: the pages themselves. Every rank of a tensor-parallel group holds the same; the first writes.

    def register_kv_caches(self, kv_caches):
        layers = get_layers_from_vllm_config(self._vllm_config, CacheOnlyAttentionLayer, list(kv_caches))
        if get_tensor_model_parallel_rank() == 0 and layers:
            (name,) = layers
            self.states = kv_caches[name]
            self.writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="thalweg")
            log.info("residuals %s go to %s", list(self.states.shape[1:]), self.shared)

    def get_finished(self, finished_req_ids):
        """Copies what has finished; its blocks are free from then on."""
        if self.states is None or not self.has_connector_metadata():
            return None, None
        finished = self._get_connector_metadata().finished
        for one in finished:
            self.save(one)
        return {one.request for one in finished} or None, None

    def get_finished_count(self):
        return 1  # one rank of each engine reports

    def save(self, one):
        path = os.path.join(self.shared, one.name)
        try:
            n, size = len(one.token_ids), self.states.shape[2]
            blocks = torch.tensor(one.blocks[: -(-n // size)], device=self.states.device)
            if len(blocks) * size < n:
                raise ValueError(f"{n} tokens, but {len(blocks)} blocks of {size}")
            pages = self.states[blocks].transpose(1, 2).flatten(0, 1)[:n]  # [Pos, state, DModel]
            tensors = {"hidden_states": pages.cpu().contiguous(), "token_ids": torch.tensor(one.token_ids)}
        except Exception as error:  # a failed copy must not end the engine
            return tell(path, error)
        while self.writing and self.writing[0].done() or len(self.writing) >= QUEUED:
            self.writing.popleft().result()
        self.writing.append(self.writers.submit(self.write, tensors, path))

    def write(self, tensors, path):
        try:
            save_file(tensors, path + ".partial", self.notes)
            os.replace(path + ".partial", path)
        except Exception as error:
            tell(path, error)
        if self.sweeping.acquire(blocking=False):
            try:
                if time.monotonic() - self.swept > 60:
                    sweep(self.shared)
                    self.swept = time.monotonic()
            finally:
                self.sweeping.release()

    def shutdown(self):
        if self.writers is not None:
            self.writers.shutdown(wait=True)

    def wait_for_save(self):
        pass

    def start_load_kv(self, forward_context, **kwargs):
        pass

    def wait_for_layer_load(self, layer_name):
        pass

    def save_kv_layer(self, layer_name, kv_layer, attn_metadata, **kwargs):
        pass

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config):
        return "LBNHC"  # as vLLM's own connector for this method: a token's states together in memory


def served_name(model_config):
    name = model_config.served_model_name
    return name if isinstance(name, str) else name[0]


def steers(vllm_config):
    """Whether the plugin vllm-lens is in this engine."""
    return "vllm_lens" in (vllm_config.parallel_config.worker_extension_cls or "")


def group_of_states(kv_cache_config):
    """The cache group whose blocks hold residuals; with keys and values in them too where there is one group only."""
    groups = kv_cache_config.kv_cache_groups
    if len(groups) == 1:
        return 0
    found = [at for at, group in enumerate(groups) if isinstance(group.kv_cache_spec, HiddenStateCacheSpec)]
    if len(found) == 1:
        return found[0]
    raise ValueError(f"expected one cache group of hidden states among {len(groups)}, found {len(found)}")


def tell(path, error):
    """Leaves the reason where the client looks for the file."""
    log.error("%s: %r", path, error)
    try:
        if os.path.exists(path + ".partial"):
            os.remove(path + ".partial")  # first: it may be what filled the directory
        with open(path + ".error.partial", "w") as file:
            file.write(" ".join(f"{type(error).__name__}: {error}".split()))
        os.replace(path + ".error.partial", path + ".error")
    except OSError:
        pass  # no room for the reason either: the client's time limit ends its wait


def sweep(shared):
    """Removes files of this connector that nobody fetched."""
    for entry in os.scandir(shared):
        try:
            if OURS.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > KEPT:
                os.remove(entry.path)
        except OSError:
            pass  # another engine of the same directory was quicker
