"""transformers' models: local folders, their image processor, and what is said where the network is needed."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.assertions import FLOAT32_PIXELS, FLOAT32_SUMS, assert_close
from support.hf_models import saved

import cnnviz_fast as cf
from cnnviz_fast.activations import listing
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import CaptureError, InputError, ModelError
from cnnviz_fast.models import download, hf_zoo
from cnnviz_fast.models.loaded import LoadedModel, example_input
from cnnviz_fast.options.reading import PreprocessOptions

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny ViT and its image processor, as `save_pretrained` writes them."""
    path = tmp_path_factory.mktemp("hf") / "vit"
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16
    )
    transformers.AutoModel.from_config(config).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    return path


def test_load_model_folder_brings_weights_and_preprocessing(folder: Path, photo: Path) -> None:
    model = cf.load_model(f"hf:{folder}", device="cpu")
    independent = transformers.AutoModel.from_pretrained(folder).eval()
    assert all(torch.equal(p, q) for p, q in zip(model.module.parameters(), independent.parameters(), strict=True))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with Image.open(photo) as image:
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
        assert_close(model.preprocess(image), expected, FLOAT32_PIXELS)
    assert example_input(model).shape == (1, 3, 64, 64)
    assert (model.spec, model.weights) == (f"hf:{folder}", "DEFAULT")


def test_load_model_folder_asks_no_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(download, "knock", asked.append)
    cf.load_model(f"hf:{folder}", device="cpu")
    assert asked == []


def test_load_model_folder_without_weights_or_processor(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"weights of hf:.* cannot be loaded: .* Use weights='none'"):
        cf.load_model(f"hf:{tmp_path}")
    model = cf.load_model(f"hf:{tmp_path}", weights="none", seed=5, device="cpu")
    assert model.weights == "random, seed 5"
    assert example_input(model).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("kind", "prefix"), [("trocr", ""), ("videomae", "module."), ("depth_anything", "")])
@pytest.mark.filterwarnings("ignore::cnnviz_fast.models.notes.ModelNote")  # of heads and of text that are left out
def test_load_model_folder_with_its_own_file_as_weights_is_the_same(kind: str, prefix: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = saved(kind, tmp_path)
    file = {f"{prefix}{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    torch.save({"state_dict": file}, tmp_path / "own.pt")
    wanted = cf.load_model(f"hf:{folder}", device="cpu").module.state_dict()
    found = cf.load_model(f"hf:{folder}", weights=tmp_path / "own.pt", seed=5, device="cpu").module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_render_folder_draws_tokens_without_their_prefix(folder: Path, photo: Path, tmp_path: Path) -> None:
    argv = ["render", f"hf:{folder}", str(photo), "--layer", "layers.1", "--tile", "16", "--out", str(tmp_path)]
    model = cf.load_model(f"hf:{folder}", device="cpu")
    names = [layer.name for layer in cf.list_layers(model, example_input(model))]
    # transformers 5 calls its blocks layers.1, 4 called them encoder.layer.1.
    argv[4] = next(name for name in ("layers.1", "encoder.layer.1") if name in names)
    assert cli.main(argv) == cli.DONE
    manifest = json.loads(next(tmp_path.glob("*/*.json")).read_text())
    assert (manifest["axes"], manifest["prefix_tokens"]) == ("tokens", 1)
    assert manifest["maps"]["shape"] == [32, 4, 4]


def test_layers_folder_needs_no_weights(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert cli.main(["layers", f"hf:{tmp_path}", "--match", "type:Conv2d", "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)[0]["shape"] == [1, 32, 4, 4]


def test_load_model_name_that_needs_the_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def knock(url: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(download, "knock", knock)
    with pytest.raises(ModelError, match=r"hf model 'nobody/nothing' cannot be read: .* a local folder .* offline"):
        cf.load_model("hf:nobody/nothing", weights="none")


def test_load_model_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        cf.load_model(f"hf:{tmp_path}")


def test_load_model_file_or_missing_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=rf"must be a folder .* got a file\. Name its folder: hf:{tmp_path}\.$"):
        cf.load_model(f"hf:{tmp_path / 'model.safetensors'}")
    for missing in ("/nonexistent/folder", "./nonexistent", "a/b/c"):
        with pytest.raises(ModelError, match=rf"^no folder '{missing}'\. A name on the hub is hf:OWNER/NAME\.$"):
            cf.load_model(f"hf:{missing}")


def test_load_model_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"takes no images: no part of BertModel has an input pixel_values"):
        cf.load_model(f"hf:{tmp_path}", weights="none")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the notes of a test, instead of an error at the first one."""
    notes: list[str] = []
    monkeypatch.setattr(hf_zoo, "note", notes.append)
    return notes


KINDS = {
    "depth_anything": ("DepthAnythingForDepthEstimation", (3, 56, 56), []),
    "vitpose": ("VitPoseForPoseEstimation", (3, 64, 48), []),
    "zoedepth": ("ZoeDepthForDepthEstimation", (3, 64, 64), []),
    "upernet": ("UperNetForSemanticSegmentation", (3, 64, 64), []),
    "vitmatte": ("VitMatteForImageMatting", (4, 448, 640), []),
    "superpoint": ("SuperPointForKeypointDetection", (3, 48, 64), []),
    "eomt": ("EomtForUniversalSegmentation", (3, 64, 64), []),
    "sam": ("SamModel", (3, 64, 64), []),
    "vjepa2": ("VJEPA2Model", (3, 4, 32, 32), []),
    "clip": (
        "CLIPVisionModel",
        (3, 64, 64),
        ["is used, without text_model, visual_projection, text_projection."],
    ),
    "llava": ("CLIPVisionModel", (3, 64, 64), ["language_model, the head of LlavaForConditionalGeneration."]),
    "trocr": ("ViTModel", (3, 64, 64), ["ViTModel is used, without decoder."]),
    "videomae": ("VideoMAEModel", (3, 4, 32, 32), ["without the head of VideoMAEForVideoClassification."]),
    "classifier": ("ViTModel", (3, 64, 64), ["ViTModel is used, without the head of ViTForImageClassification"]),
    "detr": (
        "DetrModel",
        (3, 96, 96),
        ["the head of DetrFor", "pixel_mask of its processor is not passed on, so"],
    ),
}
LIKE_OTHERS = ("zoedepth", "upernet", "superpoint", "eomt", "sam")
"""Found and built as depth_anything is, or, which transformers builds for any task, as vjepa2."""


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.zoo if k in LIKE_OTHERS else ()) for k in KINDS])
def test_load_model_kinds_that_users_have_run_and_say_what_is_left_out(
    kind: str, tmp_path: Path, photo: Path, said: list[str]
) -> None:
    part, shape, notes = KINDS[kind]
    spec = f"hf:{saved(kind, tmp_path)}"
    trained, random = (cf.load_model(spec, weights=weights, device="cpu") for weights in (None, "none"))
    assert type(trained.module).__name__ == part
    batch = cf.load_images(photo, trained)
    assert tuple(batch.shape) == (1, *shape)
    assert sum(bool(layer.calls) for layer in cf.list_layers(trained, batch)) > 10
    assert str(random.module) == str(trained.module)  # layer by layer, so that this one runs too
    assert torch.equal(cf.load_images(photo, random), batch)
    assert len(said) == 2 * len(notes)
    assert all(expected in note for note, expected in zip(said, 2 * notes, strict=True))
    assert all(note.startswith(f"{spec}: ") and "\n" not in note for note in said)


@pytest.mark.parametrize("kind", ["classifier", "llava", "clip"])
def test_load_model_part_has_the_weights_of_the_file(kind: str, tmp_path: Path, said: list[str]) -> None:
    model = cf.load_model(f"hf:{saved(kind, tmp_path)}", device="cpu")
    # transformers renames what it reads, so values are looked for.
    file = [value for path in tmp_path.glob("*.safetensors") for value in load_file(path).values()]
    lost = [
        name
        for name, value in model.module.named_parameters()
        if not any(tensor.shape == value.shape and torch.equal(tensor, value) for tensor in file)
    ]
    assert lost == (["pooler.dense.weight"] if kind == "classifier" else [])  # of which a note speaks


def test_load_model_what_the_file_lacks_is_random_under_the_seed_and_said(tmp_path: Path, said: list[str]) -> None:
    saved("classifier", tmp_path)
    first, again, other = (cf.load_model(f"hf:{tmp_path}", seed=seed, device="cpu") for seed in (1, 1, 2))
    assert said[0].endswith("; there are no weights for pooler.dense: random.")
    assert torch.equal(first.module.pooler.dense.weight, again.module.pooler.dense.weight)
    assert not torch.equal(first.module.pooler.dense.weight, other.module.pooler.dense.weight)


def test_load_model_of_patches_in_rows_sees_an_image_and_what_it_needs(
    tmp_path: Path, said: list[str], photo: Path
) -> None:
    model = cf.load_model(f"hf:{saved('siglip2', tmp_path)}", device="cpu")
    assert said == [f"hf:{tmp_path}: Siglip2VisionModel is used, without text_model."]
    image = Image.open(photo).convert("RGB")
    batch = cf.load_images(image, model)
    made = transformers.Siglip2ImageProcessor()(images=image, return_tensors="pt")
    rows, columns = made["spatial_shapes"][0].tolist()
    assert tuple(batch.shape) == (1, 3, 16 * rows, 16 * columns)
    with torch.no_grad():
        expected = transformers.AutoModel.from_pretrained(tmp_path).eval().vision_model(**made).last_hidden_state
    ours = cf.capture(model, batch, "post_layernorm")["post_layernorm"]
    assert_close(ours, expected[:, : rows * columns], FLOAT32_SUMS)
    # The caller may also pack patches.
    inputs = {name: value for name, value in made.items() if name != "pixel_values"}
    packed = cf.capture(model, made["pixel_values"], "post_layernorm", inputs=inputs)["post_layernorm"]
    assert torch.equal(packed, expected)
    two = cf.load_images([image, image], model)
    assert_close(cf.capture(model, two, "post_layernorm")["post_layernorm"][1], ours[0], FLOAT32_SUMS)


def test_load_model_of_patches_in_rows_says_which_sizes_fit(tmp_path: Path, said: list[str], photo: Path) -> None:
    saved("siglip2", tmp_path)
    fits, does_not = (
        cf.load_model(f"hf:{tmp_path}", device="cpu", preprocess=PreprocessOptions(size=size)) for size in (64, 70)
    )
    assert cf.capture(fits, cf.load_images(photo, fits), "post_layernorm")["post_layernorm"].shape == (1, 16, 32)
    with pytest.raises(InputError, match=r"must be multiples of 16 px high and wide, got 70 x 70\. Set size\."):
        cf.capture(does_not, cf.load_images(photo, does_not), "post_layernorm")


def test_load_model_that_needs_more_than_an_image_says_so(tmp_path: Path, said: list[str]) -> None:
    config = transformers.MllamaVisionConfig(
        hidden_size=32, num_hidden_layers=1, num_global_layers=1, attention_heads=2, intermediate_size=32,
        image_size=28, intermediate_layers_indices=[0], vision_output_dim=64,
    )  # fmt: skip
    config.architectures = ["MllamaVisionModel"]
    config.save_pretrained(tmp_path)
    cf.load_model(f"hf:{tmp_path}", weights="none", device="cpu")
    assert len(said) == 1
    assert said[0].endswith("it needs aspect_ratio_ids, aspect_ratio_mask beside the image: give them as inputs.")


def test_render_says_in_one_line_what_is_left_out(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved("clip", tmp_path / "clip")
    argv = ["render", f"hf:{tmp_path / 'clip'}", str(photo), "--layer", "type:Conv2d", "--out", str(tmp_path / "out")]
    assert cli.main(argv) == cli.DONE
    errors = capsys.readouterr().err
    assert f"cnnviz: hf:{tmp_path / 'clip'}: CLIPVisionModel is used, without text_model, visual_projection" in errors
    assert "Warning" not in errors


def test_load_model_arguments_replace_entries_of_the_configuration(folder: Path) -> None:
    model = cf.load_model(f"hf:{folder}", weights="none", arguments={"num_hidden_layers": 1}, device="cpu")
    assert len(model.module.layers) == 1
    with pytest.raises(ModelError, match=r"arguments of hf:.* must be entries of its ViTConfig, got 'num_layres'\."):
        cf.load_model(f"hf:{folder}", weights="none", arguments={"num_layres": 1})


OWN_CODE = """
import pathlib
pathlib.Path({mark!r}).write_text("executed")
from transformers import PreTrainedConfig, PreTrainedModel, ViTModel
from transformers.image_processing_utils import BaseImageProcessor

class OwnConfig(PreTrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

class OwnProcessor(BaseImageProcessor):
    pass
"""

YES = "y\nyes\n1\n" * 20


def _with_own_code(folder: Path, known: bool) -> Path:
    """Write a folder of a model that brings code of its own, and the path of a file that this code would write."""
    folder.mkdir(exist_ok=True)
    mark = folder / "executed"
    (folder / "own.py").write_text(OWN_CODE.format(mark=str(mark)))
    references = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoImageProcessor": "own.OwnProcessor"}
    file = folder / "config.json"
    config = json.loads(file.read_text()) if file.exists() else {}
    if not known:
        config = {"model_type": "own", "architectures": ["OwnModel"]}
    file.write_text(json.dumps({**config, "auto_map": references}))
    processor = {"auto_map": references, "image_processor_type": "OwnProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return mark


def test_load_model_own_code_is_never_asked_for_nor_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = _with_own_code(tmp_path / "own", known=False)
    answers = io.StringIO(YES)
    monkeypatch.setattr(sys, "stdin", answers)
    with pytest.raises(
        ModelError, match=r"needs code of its own, which is never run\. Build it in Python and"
    ) as caught:
        cf.load_model(f"hf:{tmp_path / 'own'}", weights="none")
    assert "package.module:factory" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert answers.tell() == 0
    assert capsys.readouterr().out == ""


def test_load_model_own_code_beside_a_known_type_is_not_run_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    shutil.copytree(folder, tmp_path / "vit")
    mark = _with_own_code(tmp_path / "vit", known=True)
    answers = io.StringIO(YES)
    monkeypatch.setattr(sys, "stdin", answers)
    for weights in (None, "none"):
        model = cf.load_model(f"hf:{tmp_path / 'vit'}", weights=weights, device="cpu")
        assert type(model.module).__module__.startswith("transformers.")
    assert not mark.exists()
    assert answers.tell() == 0


def test_command_line_own_code_does_not_read_answers_from_a_list_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = _with_own_code(tmp_path / "own", known=False)
    answers = io.StringIO(YES)
    monkeypatch.setattr(sys, "stdin", answers)
    argv = ["run", f"hf:{tmp_path / 'own'}", "-", "--layer", "0", "--out", str(tmp_path / "out"), "--weights", "none"]
    assert cli.main(argv) == cli.FAILED
    said = capsys.readouterr()
    assert "needs code of its own, which is never run" in said.err
    assert "Do you wish" not in said.out + said.err
    assert not mark.exists()


def test_load_model_processor_with_own_code_is_said(folder: Path, tmp_path: Path, said: list[str]) -> None:
    shutil.copytree(folder, tmp_path / "vit")
    own = {"auto_map": {"AutoImageProcessor": "own.OwnProcessor"}, "image_processor_type": "OwnProcessor"}
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(json.dumps({**config, "model_type": "vitdet"}))
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(own))
    cf.load_model(f"hf:{tmp_path / 'vit'}", weights="none", device="cpu")
    assert "cannot be used: it needs code of its own, which is never run. ImageNet's preprocessing is" in said[-1]


def test_preprocess_of_the_hub_that_is_out_of_reach_says_what_is_used_instead(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def knock(url: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(download, "knock", knock)
    config = transformers.ViTConfig(image_size=64)
    preprocess = hf_zoo.preprocess_of("nobody/nothing", config, torch.nn.Identity())
    assert preprocess(Image.new("RGB", (90, 80))).shape == (3, 64, 64)
    assert len(said) == 1
    assert said[0].startswith("hf:nobody/nothing: its image processor cannot be used: ")
    assert said[0].endswith(". ImageNet's preprocessing is used instead.")


def test_load_model_clip_sees_its_frames_in_order(tmp_path: Path, photo: Path, said: list[str]) -> None:
    model = cf.load_model(f"hf:{saved('videomae', tmp_path)}", device="cpu")
    clips = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    name = next(layer.name for layer in cf.list_layers(model) if layer.type == "VideoMAELayer")
    seen = []
    theirs = transformers.AutoModel.from_pretrained(tmp_path).eval()
    theirs.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        theirs(clips.transpose(1, 2))
    assert torch.equal(cf.capture(model, clips, name)[name], seen[0])


def test_layers_that_load_twice_say_what_is_left_out_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved("classifier", tmp_path)
    listed = listing.list_layers
    monkeypatch.setattr(listing, "list_layers", lambda model, size: listed(_not_on_meta(model), size=size))
    assert cli.main(["layers", f"hf:{tmp_path}"]) == cli.DONE
    assert capsys.readouterr().err.count("without the head of ViTForImageClassification") == 1


def _not_on_meta(model: LoadedModel) -> LoadedModel:
    if next(model.module.parameters()).is_meta:
        raise CaptureError("it looks at values")
    return model


_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
_SEES = {**_SMALL, "image_size": 32, "patch_size": 8}
LEFT_OUT = {
    "BlipForConditionalGeneration": "text_decoder",
    "BlipForImageTextRetrieval": "text_encoder, vision_proj, text_proj, itm_head",
    "BlipForQuestionAnswering": "text_encoder, text_decoder",
    "BlipModel": "text_model, visual_projection, text_projection",
    "Blip2ForConditionalGeneration": "qformer, language_projection, language_model",
    "CLIPForImageClassification": "classifier",
}


@pytest.mark.parametrize("architecture", LEFT_OUT)
def test_load_model_names_what_the_checkpoint_has_beside_the_part(
    architecture: str, tmp_path: Path, said: list[str]
) -> None:
    if architecture.startswith("Blip2"):
        text = {**_SMALL, "model_type": "opt", "vocab_size": 9, "ffn_dim": 48, "word_embed_proj_dim": 32}
        former = {**_SMALL, "encoder_hidden_size": 32, "vocab_size": 9}
        config = transformers.Blip2Config(vision_config=_SEES, qformer_config=former, text_config=text)
    elif architecture.startswith("Blip"):
        config = transformers.BlipConfig(vision_config=_SEES, text_config={**_SMALL, "vocab_size": 9})
    else:
        config = transformers.CLIPConfig(vision_config=_SEES, text_config={**_SMALL, "vocab_size": 9})
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    cf.load_model(f"hf:{tmp_path}", weights="none", device="cpu")
    (note,) = said
    assert note.endswith(f" is used, without {LEFT_OUT[architecture]}.")
