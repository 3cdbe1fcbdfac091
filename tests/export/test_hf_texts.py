"""`acclimate export hf` for texts: the tokenizer travels, and the bundle answers what the pipeline answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer

from acclimate.adapters.manifest import Manifest
from acclimate.export.calibration_texts import Columns, class_numbers, read_texts
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel
from acclimate.export.hf import Reading, calibration, read_checkpoint
from acclimate.export.hf_texts import TextFormat
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.client import Client
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.end_to_end.daemons import running
from tests.export.checkpoints import (
    BERT_SIZES,
    INTENTS,
    LENGTH,
    answers,
    confident,
    distilbert,
    names,
    save_tokenizer,
    silent,
    texts,
    trained_looks,
    write_table,
)
from tests.export.commandline import acclimate
from tests.export.test_hf_pictures import at_source, relative, torch_answers

TASK = "text-classification"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilbert(tmp_path_factory.mktemp("checkpoints") / "intents")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported through the command line, calibrated on a table whose labels are the pipeline's."""
    folder = tmp_path_factory.mktemp("bundles")
    candidates = texts(300)
    logits, labels = answers(checkpoint, TASK, candidates)
    chosen = confident(logits, 200)
    table = write_table(folder / "queries.csv", [candidates[i] for i in chosen], [labels[i] for i in chosen])
    options = ("--calibration", str(table), "--label-column", "category", "--length", str(LENGTH), "--adapt", "norm")
    result = acclimate(folder, "export", "hf", str(checkpoint), *options, "--out", "intents")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "bars and warnings are for terminals"
    assert result.stdout.startswith("intents: 5 sites, 320 adaptable parameters")
    return folder / "intents"


def own_tokenizer(bundle: Path) -> Tokenizer:
    return Tokenizer.from_file(str(bundle / "tokenizer.json"))


def ids(bundle: Path, queries: list[str]) -> np.ndarray:
    """As a client makes them: with nothing but the bundle's tokenizer."""
    return np.array([entry.ids for entry in own_tokenizer(bundle).encode_batch(queries)], np.int64)


@pytest.mark.parametrize(
    ("family", "settings"),
    [("Bert", {"pad_token_id": 0}), ("Roberta", {"pad_token_id": 0, "max_position_embeddings": 42}), ("Electra", {})],
)
def test_padding_changes_no_answer(family: str, settings: dict, tmp_path: Path) -> None:
    words = save_tokenizer(tmp_path)
    sizes = {"vocab_size": words} | BERT_SIZES | settings
    config = getattr(transformers, f"{family}Config")(**sizes, **names(INTENTS))
    with silent():
        trained_looks(getattr(transformers, f"{family}ForSequenceClassification")(config)).save_pretrained(tmp_path)
    checkpoint, queries = read_checkpoint(str(tmp_path), TASK, length=20), texts(8, seed=4)
    assert isinstance(checkpoint.samples, TextFormat)
    got = torch_answers(checkpoint, checkpoint.samples.ids(queries))
    assert relative(got, answers(tmp_path, TASK, queries)[0]) < 1e-5


def test_the_bundle_answers_as_the_pipeline(bundle: Path, checkpoint: Path) -> None:
    report = json.loads((bundle / "report.json").read_text())
    assert report["parity"]["float_accuracy"] == 1.0, "labels were the pipeline's"
    queries = texts(60, seed=5)
    logits, _ = answers(checkpoint, TASK, queries)
    chosen = confident(logits, 40)
    engine = OnnxEngine(read_bundle(bundle), OnnxOptions())
    inputs = ids(bundle, [queries[i] for i in chosen])
    assert relative(at_source(engine, inputs), logits[chosen]) < 0.06, "weights of eight bits, nothing else"
    assert (engine.frozen(inputs).argmax(1) == logits[chosen].argmax(1)).mean() > 0.95
    engine.close()


def test_the_tokenizer_travels_and_is_verified(bundle: Path, checkpoint: Path) -> None:
    described = Manifest.from_json(json.loads((bundle / "manifest.json").read_text()))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert described.files[name].sha256 == hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [
        ("input_ids", "INT64", (-1, LENGTH))
    ]
    assert (described.task, described.classes) == (TASK, INTENTS)
    with silent():
        original = transformers.AutoTokenizer.from_pretrained(checkpoint)
        travelled = transformers.AutoTokenizer.from_pretrained(bundle)
    queries = [*texts(20, seed=6), "an unknown word", " ".join(texts(4))]
    options = {"padding": "max_length", "truncation": True}
    expected = original(queries, max_length=LENGTH, **options)["input_ids"]
    np.testing.assert_array_equal(ids(bundle, queries), expected)
    assert travelled(queries, **options)["input_ids"] == expected


def test_a_daemon_serves_texts_and_learns_from_them(bundle: Path, checkpoint: Path) -> None:
    queries = texts(32, seed=7)
    logits, _ = answers(checkpoint, TASK, queries)
    clear = confident(logits, 24)
    inputs = ids(bundle, [queries[i] for i in clear])
    with running(bundle, synchronous=True) as daemon, Client(daemon.target) as client:
        served = client.predict("intents", inputs)
        assert (served.labels == logits[clear].argmax(1)).mean() > 0.9
        recipe = {"recipe": "tent", "recipe_parameters": {"lr": 0.01, "batch_rows": 8}}
        with client.create_session("intents", "desk", **recipe) as session:
            for step in range(6):
                session.predict(ids(bundle, texts(8, seed=10 + step)))
            view = session.get()
            adapted = session.predict(inputs, adapt=False)
    assert view.updates > 0
    assert adapted.version > 0
    assert not np.array_equal(adapted.logits, served.logits), "a session that learnt answers in its own way"


def test_texts_are_read_from_what_people_have(checkpoint: Path, tmp_path: Path) -> None:
    loaded, queries = read_checkpoint(str(checkpoint), length=LENGTH), texts(20, seed=8)
    labels = [INTENTS[i % 3] for i in range(20)]
    write_table(tmp_path / "q.csv", queries, labels)
    (tmp_path / "q.tsv").write_text((tmp_path / "q.csv").read_text().replace(",", "\t"))
    lines = [json.dumps({"text": q, "category": i % 3}) for i, q in enumerate(queries)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "q.txt").write_text("\n\n".join(queries), encoding="utf-8-sig")
    assert isinstance(loaded.samples, TextFormat)
    np.savez(tmp_path / "q.npz", x=loaded.samples.ids(queries).astype(np.int32), y=[i % 3 for i in range(20)])
    tables = {"q.csv": "category", "q.tsv": "category", "q.jsonl": "category", "q.txt": None, "q.npz": None}
    for name, column in tables.items():
        data = calibration(loaded, tmp_path / name, Reading(columns=Columns(label=column)))
        np.testing.assert_array_equal(data.inputs, loaded.samples.ids(queries), err_msg=name)
        assert data.inputs.dtype == np.int64
        if name != "q.txt":
            np.testing.assert_array_equal(data.labels, np.arange(20) % 3, err_msg=name)
    few = calibration(loaded, tmp_path / "q.csv", Reading(columns=Columns(label="category"), most=5))
    np.testing.assert_array_equal(few.labels, [0, 2, 1, 2, 1])
    np.testing.assert_array_equal(few.inputs, loaded.samples.ids(queries)[[0, 5, 10, 14, 19]])


def test_tables_that_cannot_be_used(checkpoint: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "q.csv", ["a", "b"], ["x", "y"])
    with pytest.raises(
        CalibrationError, match=r"line 2 has no 'query'; it has \['text', 'category'\]: say --text-column"
    ):
        read_texts(tmp_path / "q.csv", Columns("query"))
    with pytest.raises(CalibrationError, match="label 'x' is no class of the model, which has 3, from 'card arrival'"):
        class_numbers(["x"], INTENTS)
    (tmp_path / "q.jsonl").write_text('{"text": "a"}\n{')
    with pytest.raises(CalibrationError, match="line 2 is not JSON"):
        read_texts(tmp_path / "q.jsonl", Columns())
    (tmp_path / "q.csv").write_text('text\n"never closed')
    with pytest.raises(CalibrationError, match="is not a table"):
        read_texts(tmp_path / "q.csv", Columns())
    (tmp_path / "q.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CalibrationError, match="is not text in UTF-8"):
        read_texts(tmp_path / "q.txt", Columns())
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_texts(tmp_path / "none.txt", Columns())
    loaded = read_checkpoint(str(checkpoint), length=LENGTH)
    np.savez(tmp_path / "long.npz", x=np.ones((20, LENGTH + 1), np.int64))
    with pytest.raises(CalibrationError, match=r"shape \[17\]; expected token ids \[N, 16\]: give --length"):
        calibration(loaded, tmp_path / "long.npz")
    np.savez(tmp_path / "high.npz", x=np.full((20, LENGTH), 9999))
    with pytest.raises(CalibrationError, match=r"token id 9999 is outside 0\.\."):
        calibration(loaded, tmp_path / "high.npz")


def test_lengths(checkpoint: Path) -> None:
    samples = read_checkpoint(str(checkpoint)).samples
    assert isinstance(samples, TextFormat)
    assert samples.length == 40, "what the model takes, as it is below 128"
    with pytest.raises(ExportError, match="length: 41 tokens were asked for; this checkpoint takes 2 to 40"):
        read_checkpoint(str(checkpoint), length=41)


def test_padding_that_is_also_text_is_refused(checkpoint: Path) -> None:
    samples = read_checkpoint(str(checkpoint), length=LENGTH).samples
    assert isinstance(samples, TextFormat)
    with pytest.raises(UnsupportedModel, match="also occurs in texts"):
        samples.ids(["my [PAD] card"])
