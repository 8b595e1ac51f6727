"""Names of output files: safe, short, no two alike, and the same in whatever order the images come."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tracemalloc
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.cases import noise
from support.command_line import run
from support.looping import over
from support.shards import png

import cnnviz_fast as cf
from cnnviz_fast.errors import InputError
from cnnviz_fast.formats.names import layer_parts, output_path, output_stems, safe_part

FORBIDDEN = set('/\\:*?"<>|') | {chr(i) for i in (*range(32), *range(127, 160))}
LONGEST_BYTES = 121
# Every kind of key that once broke something; random ones are made of these pieces too.
HOSTILE = [
    "../x.png", "/etc/passwd", "../../..", "..", ".", "", "/", ".png", "...png", " .png", "a/.hidden.png", "x. .png",
    "dir\\cat.png", "CON", "con.txt.png", "a/NUL.jpg", "COM1.png", "lpt9.x.png", "AUX .png", "CONIN$.png", "COM².png",
    "a\nb.png", "a\0b.png", "\x1b[31mred.png", "\u202egpj.exe.png", "\ud800.png", "\udcff/\udcff.png", "😀.png",
    "a" * 300 + ".png", "é" * 150 + ".png", "😀" * 80 + ".png", "a" * 95 + " b.png", "cafe\u0301.png", "caf\u00e9.png",
    "Cat.png", "b/cat.jpg", "CAT", "ß.png", "SS.png", "ss.png", "I.png", "ı.png", "K.png", "\u212a.png",
    "shard.tar/7.jpg",
    "q?.png", "q*.png", "q|.png", "-rf.png", "\ufeffbom.png",
]  # fmt: skip


def folds(stem: str) -> set[str]:
    """Return what file systems without case may compare: by lower case, by upper case, composed or not."""
    return {
        unicodedata.normalize(form, fold(stem))
        for form in ("NFC", "NFD")
        for fold in (str.casefold, str.lower, str.upper)
    }


def check_stems(keys: Sequence[str], stems: Sequence[str]) -> None:
    """Assert all that a stem promises, in ways that the module does not use itself."""
    assert len(stems) == len(keys)
    taken: set[str] = set()
    folder = Path("/some/where/out")
    for stem in stems:
        assert stem == stem.strip(". ") != ""
        assert not set(stem) & FORBIDDEN
        assert len(stem.encode()) <= LONGEST_BYTES  # strict: lone surrogates raise
        assert unicodedata.is_normalized("NFC", stem)
        assert (folder / f"{stem}.png").resolve().parent == folder
        assert stem.split(".")[0].rstrip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "CONIN$", "COM²"}
        assert not folds(stem) & taken
        taken |= folds(stem)


def test_output_stems_hostile_keys_give_safe_and_distinct_stems() -> None:
    stems = output_stems(HOSTILE)
    check_stems(HOSTILE, stems)
    by_key = dict(zip(HOSTILE, stems, strict=True))
    assert by_key["😀.png"] == "😀"
    assert by_key["a/NUL.jpg"] == "_NUL"
    assert by_key["a/.hidden.png"] == "hidden"
    assert by_key["dir\\cat.png"] == "dir-cat"
    assert by_key["shard.tar/7.jpg"] == "7"
    assert by_key["\x1b[31mred.png"] == "--31mred"


@over(("key", "stem"), [
    ("photos/black.cat.png", "black.cat"),
    ("cat", "cat"),
    ("train.parquet/17", "17"),
    ("../x.png", "x"),
    ("/etc/passwd", "passwd"),
    ("..", "_"),
    ("", "_"),
    ("a/b/", "_"),
    (".png", "png"),
    ("cafe\u0301.png", "caf\u00e9"),
    ("é" * 150 + ".png", "é" * 48),
    ("é" * 47 + "x😀.png", "é" * 47 + "x"),
    ("a" * 95 + " b.png", "a" * 95),
])  # fmt: skip
def test_output_stems_of_one_key_is_its_last_part_without_suffix(key: str, stem: str) -> None:
    assert list(output_stems([key])) == [stem]


def test_output_stems_equal_names_all_get_the_digest_of_their_key() -> None:
    keys = ["a/cat.png", "b/Cat.jpg", "dog.png", "c/CAT.png", "d/ca t.png"]
    expected = {key: f"{Path(key).stem}-{hashlib.sha256(key.encode()).hexdigest()[:8]}" for key in keys}
    expected |= {"dog.png": "dog", "d/ca t.png": "ca t"}
    assert dict(zip(keys, output_stems(keys), strict=True)) == expected


def test_output_stems_name_that_is_anothers_with_digest_pushes_both_on() -> None:
    digest = hashlib.sha256(b"a/cat.png").hexdigest()
    planted = [f"cat-{digest[:8]}.png", f"cat-{digest[:16]}.png", f"cat-{digest[:24]}.png"]
    keys = ["a/cat.png", "b/cat.png", *planted]
    stems = list(output_stems(keys))
    check_stems(keys, stems)
    assert stems[0] == f"cat-{digest[:24]}"
    assert stems[1] == f"cat-{hashlib.sha256(b'b/cat.png').hexdigest()[:8]}"
    assert list(output_stems(keys[::-1])) == stems[::-1]


@pytest.mark.parametrize("make", [output_stems, layer_parts])
def test_stems_of_a_key_that_is_there_twice_are_refused(make: Callable[[Sequence[str]], Sequence[str]]) -> None:
    with pytest.raises(InputError, match=r"keys must be different, got 'a' twice\."):
        make(["a", "b", "a"])
    assert list(make([])) == []


@given(
    st.lists(
        st.one_of(
            st.sampled_from(HOSTILE),
            st.text(st.characters(), max_size=200),  # with lone surrogates: to leave them out takes seconds
            st.lists(st.sampled_from(["a", "A", "ss", "ß", "/", "..", ".", " ", "con", "e\u0301", "é", ".png"])).map(
                "".join
            ),
        ),
        unique=True,
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_output_stems_any_keys_in_any_order(keys: list[str], order: random.Random) -> None:
    stems = output_stems(keys)
    check_stems(keys, stems)
    shuffled = keys[:]
    order.shuffle(shuffled)
    assert dict(zip(shuffled, output_stems(shuffled), strict=True)) == dict(zip(keys, stems, strict=True))


def test_output_stems_of_many_keys_take_little_memory() -> None:
    keys = [f"train/n{i % 1000:08d}/n{i % 1000:08d}_{i // 2}.JPEG" for i in range(10_000)]
    tracemalloc.start()
    stems = output_stems(keys)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len({*stems}) == len(keys)
    assert stems[7] == "n00000007_3"
    assert peak < 100 * len(keys)  # a list of such strings alone takes 80 bytes each


def test_layer_parts_keep_the_layers_apart() -> None:
    layers = ["layer4", "features/0", "features:0", "../up", "layer4[1]", "x@t0", "Layer4", "a" * 300, "nul"]
    parts = list(layer_parts(layers))
    check_stems(layers, parts)
    assert parts[3] == "-up"
    assert parts[4:6] == ["layer4-1-", "x-t0"]
    assert [part[:11] for part in parts[1:3]] == ["features-0-"] * 2
    assert parts[8] == "_nul"


def test_output_path_is_layer_then_image() -> None:
    assert output_path("layer4", "cat", ".png") == "layer4/cat.png"
    assert output_path("layer4", "cat", ".safetensors", kind="sum") == "layer4/sum/cat.safetensors"
    assert output_path("layer4", "cat", "", kind="tiles") == "layer4/tiles/cat"
    assert output_path("", "cat", ".png") == "cat.png"


def test_names_of_two_images_together_fit_into_a_file_name() -> None:
    assert len(safe_part("a" * 1000)) == 96
    assert 2 * LONGEST_BYTES + len("_") + len(".safetensors") <= 255


def test_safe_part_of_any_character_is_safe_and_settled() -> None:
    for code in (*range(0, 0x250), *range(0x2000, 0x2070), 0xD800, 0xDFFF, 0xFEFF, 0x1F600):
        part = safe_part(f"a{chr(code)}b")
        check_stems(["a"], [part])
        assert safe_part(part) == part


def test_output_stems_forms_of_a_letter_are_told_apart() -> None:
    for code in [*range(0x41, 0x600), *range(0x1C80, 0x2200), *range(0xFB00, 0xFB18)]:
        letter = chr(code)
        forms = {letter, letter.upper(), letter.lower(), letter.casefold(), unicodedata.normalize("NFD", letter)}
        if len(forms) == 1:
            continue
        keys = [f"{i}/x{form}.png" for i, form in enumerate(sorted(forms))]
        check_stems(keys, output_stems(keys))


def test_names_of_files_that_are_not_utf_8_are_drawn_like_any_other(tmp_path: Path) -> None:
    odd = os.path.join(tmp_path, os.fsdecode(b"caf\xe9.png"))
    for name in (odd, tmp_path / "ok.png"):
        with open(name, "wb") as file:
            file.write(png(3))
    conv, out = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3)), tmp_path / "out"
    maps, provenance = noise(3, 4, 4), cf.Provenance(image=odd)
    cf.visualize(conv, [odd, tmp_path / "ok.png"], ["0"], out=out, tile=8)
    cf.save_tiles(maps, out / "tiles", tile=4, provenance=provenance)
    cf.compare(maps, maps, tile=4, provenance_a=provenance).save(out / "pair.png")
    cf.save_atlas(maps, out / "a.atlas", provenance=provenance)
    assert sorted(path.name for path in (out / "0").iterdir()) == ["caf-.json", "caf-.png", "ok.json", "ok.png"]
    for manifest in (out / "0" / "caf-.json", out / "tiles" / "manifest.json"):
        assert json.loads(manifest.read_text("ascii"))["image"] == odd
    assert cf.read_atlas(out / "a.atlas").provenance.image == odd
    drawn = ["render", "resnet18", odd, str(tmp_path / "ok.png"), "--weights", "none", "--layer", "conv1"]
    assert run(*drawn, "--size", "32", "--out", str(tmp_path / "cli")) == 0
    assert len(list((tmp_path / "cli" / "conv1").iterdir())) == 4
