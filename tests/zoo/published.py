"""Networks that others published, unedited: with half the channels of every group cut, from files, and as ONNX.

pip install --no-deps flaim==0.0.5 transformers==4.57.6 tokenizers==0.22.1 huggingface_hub==0.36.0 regex pyyaml filelock
python -m tests.zoo.published
python -m tests.zoo.published --what program
python -m tests.zoo.published --what onnx
python -m tests.zoo.published --what second-order resnet18 vit_tiny_patch16_224 BertForSequenceClassification

Weights are drawn: nothing is downloaded. Of flaim one or a few networks of each family, as published, on one image of
224 x 224; of transformers each kind of network in a small size. One with channels cut is compared with the dense
network in which the channels are zero, one from a file with itself, one in ONNX with itself as floats and in 8 bits.
"""

import argparse
import dataclasses
import inspect
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nncompress_jax as nnc
from nncompress_jax.artifact.contents import contents
from nncompress_jax.search.stitching import file_bytes
from nncompress_jax.table import Table
from nncompress_jax.tree import stored_bytes
from tests.coupling.test_groups import half
from tests.export.runtime import exported as in_onnx
from tests.export.runtime import kernels

RANDOM = np.random.default_rng(0)

FLAIM = (
    *("beit_base_patch16_224", "cait_xxsmall24_224", "convmixer32_768d_patch7_kernel7", "convnext_xxxnano"),
    *("convnextv2_atto_fcmae", "deit3_small_patch16_224", "ecaresnet26t", "efficientnetv2_small", "gcvit_xxtiny_224"),
    *("hornet_tiny", "maxvit_tiny_224", "nest_tiny_224", "pvtv2_b0", "regnetx_200mf", "regnety_200mf"),
    *("resnest14_2s1x64d", "resnet18", "resnet26t", "resnet50", "resnetrs50", "resnext50_32x4d", "seresnet50"),
    *("skresnet18", "swin_tiny_window7_224", "van_b0", "vgg11", "vgg11_bn", "vit_tiny_patch16_224"),
    "xcit_nano12_patch16_224",
)

PLACES = {"max_position_embeddings": 32}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {"vocab_size": 64, **LAYERS, **PLACES}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
PATCHES = {"image_size": 32, "patch_size": 8, **LAYERS}
STAGES = {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [2, 2]}
ENCODER = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
DECODER = {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
SEQUENCES = {"vocab_size": 64, "d_model": 32, "pad_token_id": 0, **ENCODER, **DECODER}
SOUND = {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "AlbertForSequenceClassification": ("text", TEXT | {"embedding_size": 16}),
    "BartForConditionalGeneration": ("sequences", SEQUENCES | PLACES),
    "BeitForImageClassification": ("images", PATCHES),
    "BertForSequenceClassification": ("text", TEXT),
    "BloomForCausalLM": ("text", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "Dinov2ForImageClassification": ("images", PATCHES | {"mlp_ratio": 2}),
    "DistilBertForMaskedLM": ("text", {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "ElectraForPreTraining": ("text", TEXT | {"embedding_size": 16}),
    "GemmaForCausalLM": ("text", TEXT | {"num_key_value_heads": 1, "head_dim": 8}),
    "GPT2LMHeadModel": ("text", GPT),
    "GPTJForCausalLM": ("text", GPT | {"rotary_dim": 4}),
    "LlamaForCausalLM": ("text", TEXT | {"num_key_value_heads": 4}),
    "MarianMTModel": ("sequences", SEQUENCES | PLACES | {"decoder_start_token_id": 1}),
    "MistralForCausalLM": ("text", TEXT | {"num_key_value_heads": 2}),
    "OPTForCausalLM": ("text", TEXT | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "RegNetForImageClassification": ("images", STAGES | {"groups_width": 4}),
    "ResNetForImageClassification": ("images", STAGES),
    "RobertaForMaskedLM": ("text", TEXT),
    "RoFormerForMaskedLM": ("text", TEXT | {"embedding_size": 16}),
    "T5ForConditionalGeneration": (
        "sequences",
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2},
    ),
    "ViTForImageClassification": ("images", PATCHES),
    "WhisperForConditionalGeneration": ("sound", SEQUENCES | SOUND),
}
"""By kind: what the network looks at, and its configuration."""

Network = tuple[str, Callable[..., Any], Any, tuple[jax.Array, ...]]
"""(name, apply, variables, inputs)."""


def of_flaim(names: list[str]) -> Iterator[Network]:
    # Two names that JAX has dropped since.
    jax.random.KeyArray = jax.Array  # type: ignore[attr-defined]
    clip = jnp.clip
    jnp.clip = lambda x, a_min=None, a_max=None: clip(x, a_min, a_max)
    from flaim.models import factory

    images = drawn(1, 224, 224, 3)
    for name in names:
        settings = dict(factory.CONFIGS[name])
        kind = settings.pop("model_cls")
        fields = {field.name for field in dataclasses.fields(kind)}
        network = kind(**{key: value for key, value in settings.items() if key in fields}, n_classes=10)
        mode = {"training": False} if "training" in inspect.signature(kind.__call__).parameters else {}

        def apply(variables, images, network=network, mode=mode):
            return network.apply(variables, images, **mode)

        yield name, apply, jax.jit(network.init)(jax.random.key(0), images), (images,)


def of_transformers(names: list[str]) -> Iterator[Network]:
    os.environ |= {"USE_FLAX": "1", "USE_TORCH": "0", "HF_HUB_OFFLINE": "1"}
    import transformers

    transformers.logging.set_verbosity_error()
    text = jnp.asarray(RANDOM.integers(2, 60, (2, 8)))
    data = {
        "text": (text,),
        "sequences": (text, text),
        "images": (drawn(2, 3, 32, 32),),
        "sound": (drawn(2, 8, 32), text),
    }
    for name in names:
        kind, settings = TRANSFORMERS[name]
        network = getattr(transformers, f"Flax{name}")
        network = network(network.config_class(**settings))

        def apply(variables, first, *second, network=network):
            return network(first, params=variables, **dict(zip(("decoder_input_ids",), second, strict=False)))[0]

        yield name, apply, network.params, data[kind]


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(RANDOM.standard_normal(shape), jnp.float32)


def noisy(variables: Any) -> Any:
    """What is zero, one or tiny at the start of training is not so here."""

    def draw(path: Any, leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        noise = drawn(*leaf.shape) if leaf.ndim else jnp.float32(0.5)
        return leaf + (abs(0.2 * noise) if "var" in str(path[-1]) else 0.1 * noise if leaf.ndim < 2 else 0.02 * noise)

    return jax.tree.map_with_path(draw, variables)


def channels(name: str, apply: Callable[..., Any], variables: Any, inputs: tuple[jax.Array, ...]) -> dict[str, Any]:
    start = time.perf_counter()
    coupling = nnc.coupling(apply, variables, *inputs)
    seconds, keep = time.perf_counter() - start, half(coupling)
    cut = coupling.cut(variables, keep)
    outputs = jax.jit(nnc.inject(apply))(cut, *inputs)
    expected = jax.jit(apply)(nnc.decompress(cut), *inputs)
    whole, left = (nnc.cost(apply, each, *inputs).macs for each in (variables, cut))
    assert coupling.macs({}) == whole, (coupling.macs({}), whole)
    assert coupling.macs(keep) == left, (coupling.macs(keep), left)
    error = float(jnp.abs(outputs - expected).max() / jnp.abs(expected).max())
    groups = {"network": name, "cut": len(coupling.groups), "frozen": len(coupling.frozen)}
    return groups | {"macs": whole, "left": left / whole, "error": error, "seconds": seconds}


def program(name: str, apply: Callable[..., Any], variables: Any, inputs: tuple[jax.Array, ...]) -> dict[str, Any]:
    """Its own program, from a file that is read back, on as many examples and on more."""
    with tempfile.TemporaryDirectory() as folder:
        file, plain = Path(folder, "a.nnc"), Path(folder, "b.nnc")
        start = time.perf_counter()
        nnc.save(file, variables, apply=apply, example=inputs)
        saved = time.perf_counter()
        again, read, _ = nnc.load(file)
        seconds = {"save": saved - start, "load": time.perf_counter() - saved}
        nnc.save(plain, variables)
        size = file.stat().st_size - plain.stat().st_size
        operations = contents(file).programs["program"].split()[0]
    same = True
    for given in (inputs, tuple(jnp.concatenate([x] * 3) for x in inputs)):
        found, expected = (jax.jit(each)(*weights, *given) for each, weights in ((again, [read]), (apply, [variables])))
        same &= all(map(np.array_equal, *map(jax.tree.leaves, (found, expected))))
    return {"network": name, "operations": int(operations), "bytes": size, "same": same} | seconds


def onnx(name: str, apply: Callable[..., Any], variables: Any, inputs: tuple[jax.Array, ...]) -> dict[str, Any]:
    """As floats and in 8 bits, by onnxruntime; what it cannot be written of."""
    figures: dict[str, Any] = {"network": name}
    small = nnc.compress(variables, nnc.quantize(), apply=apply, batches=[inputs])
    with tempfile.TemporaryDirectory() as folder:
        try:
            for kind, weights in (("floats", variables), ("integers", small)):
                run, exported = in_onnx(Path(folder), apply, weights, *inputs, batches=[inputs])
                found, own = run(*inputs)[0], np.asarray(jax.jit(nnc.inject(apply))(weights, *inputs))
                figures |= {kind: np.abs(found - own).max() / np.abs(own).max()}
        except nnc.InputError as error:
            return dict.fromkeys(FORMATS["onnx"]) | figures | {"refused": str(error)}
        ran = kernels(Path(folder))
    on_integers = sum(ran[kernel] for kernel in ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"))
    counts = {"products": exported.integer, "kernels": on_integers, "others": exported.others}
    return figures | counts | {"refused": ""}


def second_order(name: str, apply: Callable[..., Any], variables: Any, inputs: tuple[jax.Array, ...]) -> dict[str, Any]:
    """Three bits, and a budget, by the second order: errors on other inputs than those that it has seen."""

    def more(x: jax.Array, seed: int) -> jax.Array:
        random, shape = np.random.default_rng(seed), (16 if x.ndim > 2 else 512, *x.shape[1:])
        whole = jnp.issubdtype(x.dtype, jnp.integer)
        return jnp.asarray(random.integers(2, 60, shape) if whole else random.standard_normal(shape), x.dtype)

    given, others = (tuple(more(x, seed) for x in inputs) for seed in (1, 2))
    run = jax.jit(nnc.inject(apply))
    expected = np.asarray(run(variables, *others))
    figures: dict[str, Any] = {"network": name}
    start = time.perf_counter()
    for kind, method in {
        "nearest": nnc.quantize(bits=3),
        "second": nnc.quantize(bits=3, rounding="second_order"),
        "auto": nnc.auto(bytes=0.3),
    }.items():
        small = nnc.compress(variables, method, apply=apply, batches=[given])
        error = np.asarray(run(small, *others)) - expected
        figures[kind] = float(np.sqrt(np.mean(np.square(error)) / np.var(expected)))
    share = file_bytes(small) / stored_bytes(variables)
    return figures | {"share": share, "seconds": time.perf_counter() - start}


FORMATS = {
    "second-order": {
        **{"network": "", "nearest": ".3f", "second": ".3f", "auto": ".3f", "share": ".3f", "seconds": ".0f"},
    },
    "channels": {
        **{"network": "", "cut": ",", "frozen": ",", "macs": ",", "left": ".3f", "error": ".1e", "seconds": ".1f"},
    },
    "program": {"network": "", "operations": ",", "bytes": ",", "same": "", "save": ".2f", "load": ".2f"},
    "onnx": {
        **{"network": "", "floats": ".1e", "integers": ".1e", "products": "", "kernels": "", "others": ""},
        **{"refused": ""},
    },
}
TITLES = {
    "second-order": "3 bits, and 0.3 of the bytes: root mean square error of outputs, of their deviation",
    "channels": "half the channels of every group cut; error: of the largest output; seconds: of coupling",
    "program": "programs in files: bytes that they add, whether outputs are the same bits, seconds",
    "onnx": "largest error in onnxruntime, of the largest output; products on integers, and kernels that run them",
}
ROWS = {"second-order": second_order, "channels": channels, "program": program, "onnx": onnx}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of FLAIM and TRANSFORMERS; by default all")
    parser.add_argument("--what", choices=ROWS, default="channels")
    options = parser.parse_args()
    names, formats = options.names or [*FLAIM, *TRANSFORMERS], FORMATS[options.what]
    rows = []
    for networks, known in ((of_flaim, FLAIM), (of_transformers, TRANSFORMERS)):
        for name, apply, variables, inputs in networks([each for each in names if each in known]):
            rows.append(ROWS[options.what](name, apply, noisy(variables), inputs))
            print(Table("", formats, rows[-1:]).markdown().splitlines()[-1], flush=True)
    Table(TITLES[options.what], formats, rows).print()


if __name__ == "__main__":
    main()
