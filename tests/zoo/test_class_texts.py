"""Names and embeddings of classes: files of every form, and text models as their libraries save them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from gainfinder.errors import BadReference, DataError, MissingExtra, ModelError, SettingsError
from gainfinder.models import imagenet_texts
from gainfinder.zoo.class_texts import TextRequest, read_class_names
from gainfinder.zoo.embeddings import read_embeddings
from gainfinder.zoo.text_models import TextModel, check_installed, embed_names, parse_text_model

NAMES = ("cat", "dog", "hen, bird")
VALUES = np.array([[1.0, 0.0, 0.5], [0.5, 1.0, 0.25], [0.25, 0.5, 2.0]])
CPU = torch.device("cpu")
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PRESENT = torch.ones(3, dtype=torch.bool)


def asked(**files: Any) -> TextRequest:
    return TextRequest.of(**{"class_names": None, "class_embeddings": None, "embed": None, "labelled": True, **files})


def write(path: Path, *, named: bool) -> Path:
    """The embeddings in one of the forms, the rows of named ones in another order."""
    order = [2, 0, 1] if named else [0, 1, 2]
    names, values = [NAMES[i] for i in order], VALUES[order]
    if path.suffix == ".npy":
        np.save(path, values.astype(np.float32))
    elif path.suffix == ".npz":
        columns: dict[str, Any] = {"names": np.array(names), "embeddings": values} if named else {"anything": values}
        np.savez(path, **columns)
    elif path.suffix == ".safetensors":
        save_file(dict(zip(names, values, strict=True)) if named else {"anything": values}, path)
    elif path.suffix == ".parquet":
        columns = {"class": names} if named else {}
        pq.write_table(pa.table({**columns, "embedding": values.tolist()}), path)
    else:
        columns = {"name": names} if named else {}
        pyarrow.csv.write_csv(pa.table({**columns, **{f"d{i}": values[:, i] for i in range(3)}}), path)
    return path


@pytest.mark.parametrize(
    ("kind", "named"),
    [(kind, named) for kind in ("npy", "npz", "safetensors", "parquet", "csv") for named in (False, True)
     if (kind, named) != ("npy", True)],
)  # fmt: skip
def test_embeddings_in_every_form(tmp_path: Path, kind: str, named: bool) -> None:
    path = write(tmp_path / f"embeddings.{kind}", named=named)
    found = asked(class_embeddings=path).texts(NAMES, PRESENT, device=CPU)
    assert found.names == NAMES and found.source == str(path)
    assert found.embeddings_CD is not None
    assert found.embeddings_CD.tolist() == VALUES.tolist()


def test_more_forms(tmp_path: Path) -> None:
    path = tmp_path / "by-class.npz"
    np.savez(path, **dict(zip(NAMES, VALUES, strict=True)))
    assert read_embeddings(path).in_class_order(NAMES, NAMES).tolist() == VALUES.tolist()
    path = tmp_path / "no-header.csv"
    path.write_text('"hen, bird",0.25,0.5,2\ncat,1,0,0.5\ndog,0.5,1,0.25\nfox,1,1,1\n')
    assert read_embeddings(path).in_class_order(NAMES, NAMES).tolist() == VALUES.tolist(), "a class more is no matter"
    path.write_text("1,0,0.5\n0.5,1,0.25\n0.25,0.5,2\n")
    assert read_embeddings(path).in_class_order(NAMES, NAMES).tolist() == VALUES.tolist()
    path.write_text("class,a,b,c\nn1,1,0,0.5\nn2,0.5,1,0.25\nn3,0.25,0.5,2\n")
    assert read_embeddings(path).in_class_order(("n1", "n2", "n3"), NAMES).tolist() == VALUES.tolist(), "by the key"


def test_embeddings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.csv"
    for text, message in (
        ("class,a,b\ncat,1,0\ndog,0,1\n", r"no embedding of 1 of 3 classes, such as 'hen, bird'; it has 'cat', 'dog'"),
        ("class,a,b\ncat,1,0\ncat,0,1\n", "the class 'cat' is there twice"),
        ("1,0\n0,1\n", "2 embeddings without class names for 3 classes"),
        ("class,a,b\ncat,1,0\ndog,0,0\n", "that of class 'dog' has no direction"),
        ("class,a,b\ncat,1,0\ndog,x,1\n", "cannot be read: "),
        ("", "cannot be read: "),
        ("1,-1\n-1,1\n0,1\n", "a mean cosine similarity of -0.333, and similarity is given relative to it"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            asked(class_embeddings=path).texts(NAMES, PRESENT, device=CPU)
    for name, message in (("none.npy", "does not exist"), ("none.pt", "does not exist"), (".", "is a folder")):
        with pytest.raises(DataError, match=message):
            read_embeddings(tmp_path / name)
    for name in ("broken.npz", "broken.safetensors", "broken.parquet", "broken.npy"):
        (tmp_path / name).write_text("no such thing")
        with pytest.raises(DataError, match="cannot be read: "):
            read_embeddings(tmp_path / name)
    (tmp_path / "weights.pt").write_text("")
    with pytest.raises(DataError, match=r"expected a file that ends in \.npy"):
        read_embeddings(tmp_path / "weights.pt")


def test_names_from_files(tmp_path: Path) -> None:
    plain, listed = tmp_path / "names.txt", tmp_path / "names.json"
    plain.write_text("cat\n dog \nhen, bird\n")
    assert read_class_names(plain) == NAMES
    listed.write_text(json.dumps(NAMES))
    assert read_class_names(listed) == NAMES
    listed.write_text(json.dumps({"n2": "dog", "0": "cat", "n3": "hen, bird", "n9": "fox"}))
    found = asked(class_names=listed).texts(("n1", "n2", "n3"), PRESENT, device=CPU)
    assert found.names == NAMES and found.embeddings_CD is None
    for text, message in (
        ('{"n1": "cat"}', r"2 of 3 classes have none, such as 'n2'"),
        ('["cat", "dog"]', "2 names for 3 classes"),
        ('["cat", "dog", ""]', "name 3 of 3 is empty"),
        ('["cat", 1]', "expected a JSON list of names"),
        ('"cat"', "expected a JSON list of names"),
        ("{", "cannot be read"),
    ):
        listed.write_text(text)
        with pytest.raises(DataError, match=message):
            asked(class_names=listed).texts(("n1", "n2", "n3"), PRESENT, device=CPU)
    with pytest.raises(DataError, match="does not exist"):
        read_class_names(tmp_path / "none.txt")


def test_imagenets_classes_are_called_by_their_names() -> None:
    wnids = ("n01440764", "n01443537", "n01484850")
    assert asked().texts(wnids, PRESENT, device=CPU).names == ("tench", "goldfish", "great white shark")
    assert asked().texts(NAMES, PRESENT, device=CPU).names == NAMES
    assert asked().texts(None, PRESENT, device=CPU).names == ("0", "1", "2")
    by_index = imagenet_texts(None, 1000)
    assert by_index is not None and by_index[:2] == ("tench", "goldfish") and by_index[134] == by_index[517] == "crane"
    assert imagenet_texts([str(c) for c in range(1000)], 1000) == by_index
    assert imagenet_texts([f"class {c}" for c in range(1000)], 1000) is None


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npy", named=False)
    with pytest.raises(SettingsError, match="`class_embeddings` and `embed` both give embeddings"):
        asked(class_embeddings=path, embed="open_clip:ViT-B-32/openai")
    with pytest.raises(SettingsError, match="`embed` is for areas of expertise, which need labels"):
        asked(embed="open_clip:ViT-B-32/openai", labelled=False)


def test_references_of_text_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (
        ("open_clip:ViT-B-32/openai", ("ViT-B-32", "openai")),
        ("open_clip:ViT-B-32//weights/clip.pt", ("ViT-B-32", "/weights/clip.pt")),
        ("open_clip:local-dir:/models/clip", ("local-dir:/models/clip", None)),
        ("open_clip:hf-hub:org/name", ("hf-hub:org/name", None)),
        ("sentence-transformers:all-MiniLM-L6-v2", ("all-MiniLM-L6-v2", None)),
        ("sentence-transformers:org/name", ("org/name", None)),
    ):
        found = parse_text_model(text)
        assert (found.name, found.pretrained) == expected and str(found) == text
    for text, message in (
        ("openclip:ViT-B-32/openai", "unknown library 'openclip'; near matches: open_clip"),
        ("open_clip:ViT-B-32", "names no weights; expected open_clip:NAME/PRETRAINED"),
        ("sentence-transformers:", "names no model"),
        ("open_clip:local-dir:", "names no model"),
    ):
        with pytest.raises(BadReference, match=message):
            parse_text_model(text)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'gainfinder\[open-clip\]'"):
        check_installed(parse_text_model("open_clip:ViT-B-32/openai"))


def test_an_open_clip_folder_embeds_names(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = TINY_CLIP
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    module = open_clip.CLIP(**config).eval()
    torch.save(module.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    model = parse_text_model(f"open_clip:local-dir:{tmp_path}")
    found = embed_names(model, NAMES, device=CPU)
    with torch.no_grad():
        expected = module.encode_text(open_clip.SimpleTokenizer(context_length=16)(list(NAMES)))
    assert found.shape == (3, 16) and torch.allclose(found, expected, atol=1e-5)
    texts = asked(embed=str(model)).texts(NAMES, PRESENT, device=CPU)
    assert texts.source == str(model) and texts.embeddings_CD is not None
    assert torch.equal(texts.embeddings_CD, found)
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="cannot embed class names"):
        embed_names(model, NAMES, device=CPU)
    for text, message in (
        (f"open_clip:local-dir:{tmp_path / 'none'}", "does not exist"),
        ("open_clip:ViT-B-33/openai", r"no architecture 'ViT-B-33'; near matches: ViT-B-32"),
        ("open_clip:ViT-B-32/opened", r"neither a file nor one of open_clip's weights of ViT-B-32: openai"),
    ):
        with pytest.raises(ModelError, match=message):
            embed_names(parse_text_model(text), NAMES, device=CPU)


def test_an_open_clip_architecture_with_own_weights_embeds_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = TINY_CLIP
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    torch.manual_seed(1)
    module = open_clip.CLIP(**config).eval()
    torch.save(module.state_dict(), tmp_path / "tiny.pt")
    found = embed_names(parse_text_model(f"open_clip:tiny/{tmp_path / 'tiny.pt'}"), NAMES, device=CPU)
    with torch.no_grad():
        expected = module.encode_text(open_clip.SimpleTokenizer(context_length=16)(list(NAMES)))
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_sentence_transformers_folder_embeds_names(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    folder = tiny_sentence_transformer(tmp_path)
    model = parse_text_model(f"sentence-transformers:{folder}")
    found = embed_names(model, NAMES, device=CPU)
    assert found.shape == (3, 16) and not torch.allclose(found[0], found[1])
    assert torch.allclose(embed_names(model, NAMES[::-1], device=CPU).flip(0), found, atol=1e-5)
    with pytest.raises(ModelError, match="does not exist"):
        embed_names(TextModel(library="sentence-transformers", name=str(tmp_path / "none")), NAMES, device=CPU)


def tiny_sentence_transformer(folder: Path) -> Path:
    """A BERT of random weights, saved as sentence-transformers saves one."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "hen", "bird", ","]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    SentenceTransformer(str(folder / "bert"), device="cpu").save(str(folder / "saved"))  # with mean pooling
    return folder / "saved"
