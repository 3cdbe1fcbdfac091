"""Checkpoints of the transformers library as a user would have them: tiny, with random weights, and confident."""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

INTENTS = ("card arrival", "top up failed", "exchange rate")
SENTENCE = "where is my card top up failed again please help money transfer pending rate exchange pin lost abroad fee"
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
SIDE, LENGTH = 32, 16
TEXT_SIZES = {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2, "max_position_embeddings": 40}
VIT_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
BERT_SIZES = VIT_SIZES | {"max_position_embeddings": 40}
PIXELS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}


@contextmanager
def silent() -> Iterator[None]:
    """The library's own bars and warnings are no concern of a test."""
    log: Any = transformers.utils.logging
    log.disable_progress_bar()
    log.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def names(classes: Sequence[str]) -> dict[str, Any]:
    """Labels as a configuration has them."""
    return {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}


def trained_looks(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights large enough that samples get different answers, and norms away from one and zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.data += (0.2 if tensor.dim() > 1 else 0.1) * (noise.abs() if "running_var" in name else noise)
    return model.eval()


def balanced(model: Any, samples: Tensor) -> Any:
    """Change the classifier so that its logits differ from sample to sample, and no class always wins."""
    with torch.no_grad():
        logits = model(samples).logits
        spread = 4 / logits.std(0)
        last = [module for module in model.classifier.modules() if isinstance(module, nn.Linear)][-1]
        last.weight *= spread[:, None]
        last.bias.copy_(spread * (last.bias - logits.mean(0)))
    return model


def vit(folder: Path, classes: Sequence[str] = ("cat", "dog", "owl"), **settings: Any) -> Path:
    """A ViT of 32 x 32 pictures, with a processor that resizes, scales and shifts."""
    config = transformers.ViTConfig(image_size=SIDE, patch_size=8, **VIT_SIZES, **names(classes), **settings)
    return with_processor(folder, transformers.ViTForImageClassification(config), "ViT", PIXELS)


def resnet(folder: Path) -> Path:
    """A ResNet, whose size only the processor knows, by the length of an edge."""
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    config = transformers.ResNetConfig(**sizes, **names(("cat", "dog", "owl")))
    edge = {"size": {"shortest_edge": SIDE}, "crop_pct": 1.0}
    return with_processor(folder, transformers.ResNetForImageClassification(config), "ConvNext", edge)


def with_processor(folder: Path, model: nn.Module, kind: str, settings: dict[str, Any]) -> Path:
    """Save a model and the image processor of a family."""
    sizes = {"size": {"height": SIDE, "width": SIDE}} | settings
    with silent():
        balanced(trained_looks(model), torch.from_numpy(pictures(100)) / 128.0 - 1).save_pretrained(folder)
        getattr(transformers, f"{kind}ImageProcessor")(**sizes).save_pretrained(folder)
    return folder


def distilbert(folder: Path, classes: Sequence[str] = INTENTS, **settings: Any) -> Path:
    """A DistilBERT with the tokenizer it was not trained with."""
    words = save_tokenizer(folder)
    config = transformers.DistilBertConfig(vocab_size=words, **TEXT_SIZES, **names(classes), **settings)
    model = trained_looks(transformers.DistilBertForSequenceClassification(config))
    with silent():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(texts(100), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        balanced(model, ids.input_ids).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> int:
    """Word pieces of `texts`, between [CLS] and [SEP]; returns the size of the vocabulary."""
    plain = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    plain.normalizer, plain.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(SPECIAL.values()), show_progress=False)
    plain.train_from_iterator(texts(200), trainer)
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", plain.token_to_id("[CLS]")), ("[SEP]", plain.token_to_id("[SEP]"))],
    )
    with silent():
        wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=40, **SPECIAL)
        wrapped.save_pretrained(folder)
    return int(plain.get_vocab_size())


def texts(count: int, seed: int = 0) -> list[str]:
    """Sentences of two to twelve words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(SENTENCE.split(), generator.integers(2, 13))) for _ in range(count)]


def pictures(count: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Pictures uint8 `[count, 3, side, side]` of few colours, so that they differ more than noise does."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 3, 4, 4)).astype(np.uint8)
    return coarse.repeat(side // 4, 2).repeat(side // 4, 3)


def answers(folder: Path, task: str, samples: Sequence[str] | np.ndarray) -> tuple[np.ndarray, list[str]]:
    """What transformers' own pipeline says: logits `[N, classes]`, and the label of each sample."""
    asked: list[Any] = list(samples)
    if isinstance(samples, np.ndarray):
        asked = [Image.fromarray(picture.transpose(1, 2, 0)) for picture in samples]
    make: Any = transformers.pipeline
    with silent():
        pipeline = make(task, model=str(folder), device="cpu")
        order = [pipeline.model.config.id2label[i] for i in range(len(pipeline.model.config.id2label))]
        found = pipeline(asked, top_k=None, function_to_apply="none")
    scores = [{entry["label"]: entry["score"] for entry in one} for one in found]
    logits = np.array([[score[name] for name in order] for score in scores])
    return logits, [order[i] for i in logits.argmax(1)]


def confident(logits: np.ndarray, count: int) -> np.ndarray:
    """Positions of the samples whose answers are clearest: no small error changes them."""
    ranked = np.sort(logits, axis=1)
    return np.argsort(ranked[:, -2] - ranked[:, -1], kind="stable")[:count]


def write_table(path: Path, rows: Sequence[str], labels: Sequence[str]) -> Path:
    """A CSV as BANKING77 is kept."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("text", "category"))
        table.writerows(zip(rows, labels, strict=True))
    return path
