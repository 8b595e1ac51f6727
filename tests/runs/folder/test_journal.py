"""The journal of a run: cut anywhere, taken up by any number of ranks, never another image's files overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import Python
from support.waiting import wait_until

from cnnviz_fast.errors import InputError, OptionError, WriteError
from cnnviz_fast.runs.folder.index import name_of
from cnnviz_fast.runs.folder.journal import Journal

FINGERPRINT: dict[str, Any] = {"model": "torchvision:resnet18", "layers": ["layer1"], "tile": 56}
HOSTILE = ["../../up.png", "/etc/passwd", "a\nb.png", "\udcff.png", "\0", "é😀.png", "x" * 5000, ""]


def rows(*layers: str) -> list[dict[str, Any]]:
    return [{"layer": layer, "file": f"{layer}.png"} for layer in layers]


def taken(folder: Path, rank: int = 0, world_size: int = 1, **changes: Any) -> Journal:
    return Journal(folder, FINGERPRINT | changes, rank=rank, world_size=world_size)


def filled(folder: Path, keys: list[str], rank: int = 0, world_size: int = 1) -> Path:
    """Finish images of two layers each in a folder, and return the index file."""
    with taken(folder, rank, world_size) as journal:
        for key in keys:
            journal.append([(key, journal.stem_for(key, "s"), rows("a", "b"))])
        return folder / ("index.jsonl" if world_size == 1 else f"index-{rank}-of-{world_size}.jsonl")


def test_journal_remembers_what_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with taken(folder) as journal:
        assert (journal.count, journal.redone, journal.is_done("a")) == (0, 0, False)
        journal.append([("a", "a", rows("l1", "l2")), ("b", "b", [])])
        journal.append([])
        assert (journal.count, journal.is_done("a"), journal.is_done("c")) == (2, True, False)
    with taken(folder) as journal:
        assert (journal.count, journal.redone, journal.is_done("b"), journal.is_done("c")) == (2, 0, True, False)
        journal.append([("a", "other", rows("l1")), ("c", "c", rows("l3"))])  # a is finished, and stays as it is
        assert [(row["key"], row.get("layer")) for row in journal.rows()] == [
            ("a", "l1"), ("a", "l2"), ("b", None), ("c", "l3")
        ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["index.jsonl", "run.json"]
    document = json.loads((folder / "run.json").read_text())
    assert document["fingerprint"] == FINGERPRINT
    assert re.fullmatch(r"\d+\.\d+.*", document["cnnviz_fast"])


def test_journal_rows_are_this_ranks_with_all_their_fields(tmp_path: Path) -> None:
    filled(tmp_path, ["x"], 0, 2)
    with taken(tmp_path, 1, 2) as journal:
        journal.append([("k", "s", [{"file": "shard-000003.tar", "offset": 512, "size": 10}])])
        assert list(journal.rows()) == [
            {"key": "k", "stem": "s", "part": [0, 1], "file": "shard-000003.tar", "offset": 512, "size": 10}
        ]


def test_journal_cut_at_every_byte_keeps_what_was_finished_before(tmp_path: Path) -> None:
    keys = ["b/\udcff.png", "c\n.png"]
    path = filled(tmp_path / "whole", keys)
    content = path.read_bytes()
    ends = [sum(map(len, content.splitlines(keepends=True)[: 2 * n])) for n in range(3)]
    assert ends[-1] == len(content)
    for cut in range(len(content) + 1):
        folder = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(folder / path.name, cut)
        whole = sum(end <= cut for end in ends) - 1
        with taken(folder) as journal:
            assert [journal.is_done(key) for key in keys] == [i < whole for i in range(2)]
            assert journal.redone == (cut not in ends)
            assert (folder / path.name).read_bytes() == content[: ends[whole]]
            for key in keys[whole:]:
                journal.append([(key, journal.stem_for(key, "s"), rows("a", "b"))])
        assert (folder / path.name).read_bytes() == content
        shutil.rmtree(folder)


@pytest.mark.parametrize(("damage", "redone"), [
    (bytes(100), 1),
    (bytes(100) + b"\n", 1),
    (b"no JSON\n", 1),
    (b'{"key": "n", "stem": "s", "part": [1, 2]}\n', 1),
    (b'{"key": "n", "stem": "s", "part": [0, 2]}\n' * 2 + b'{"key": "m", "stem": "s", "part": [0, 1]}\n\0', 2),
])  # fmt: skip
def test_journal_is_cut_off_at_a_damage(damage: bytes, redone: int, tmp_path: Path) -> None:
    path = filled(tmp_path, ["a", "b"])
    content = path.read_bytes()
    path.write_bytes(content + damage)
    with taken(tmp_path) as journal:
        assert (journal.count, journal.redone) == (2, redone)
    assert path.read_bytes() == content
    first = content.index(b'{"key": "b"')
    path.write_bytes(content[:first] + damage + content[first:])
    with taken(tmp_path) as journal:
        assert (journal.count, journal.is_done("a"), journal.is_done("b")) == (1, True, False)
        assert journal.redone >= redone
    assert path.read_bytes() == content[:first]


@pytest.mark.parametrize("key", HOSTILE, ids=range(len(HOSTILE)))
def test_journal_any_key_is_itself(key: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with taken(folder) as journal:
        journal.append([(key, "stem", rows("a"))])
        journal.fail(key, key, f"image {key!r} is bad.")
    with taken(folder) as journal:
        assert journal.is_done(key)
        assert not journal.is_done(f"{key}.")
        assert [row["key"] for row in journal.rows()] == [key]
        assert journal.stem_for(key, "another") == "stem"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failures_are_those_of_the_last_time(tmp_path: Path) -> None:
    with taken(tmp_path) as journal:
        journal.fail("a", "folder/a", "image 'a' is empty.")
        journal.fail("b\udcff", "b\udcff", "because")
        lines = (tmp_path / "failed.jsonl").read_text().splitlines()
        assert list(map(json.loads, lines)) == [
            {"image": "a", "key": "folder/a", "reason": "image 'a' is empty."},
            {"image": "b\udcff", "key": "b\udcff", "reason": "because"},
        ]
        assert not journal.is_done("folder/a")
    with taken(tmp_path, 0, 2) as first:
        assert not (tmp_path / "failed.jsonl").exists()
        first.fail("c", "c", "why")
        with taken(tmp_path, 1, 2):
            assert (tmp_path / "failed-0-of-2.jsonl").exists()  # of a rank that is at work


@pytest.mark.parametrize(("changes", "said"), [
    ({"tile": 224}, "tile: 224 here, 56 there"),
    ({"layers": ["layer1", "layer2"]}, 'layers: ["layer1", "layer2"] here, ["layer1"] there'),
    ({"gap": 2}, "gap: 2 here, none there"),
    ({"tile": 1, "model": "mine"}, "model: mine here, torchvision:resnet18 there; tile: 1 here, 56 there"),
])  # fmt: skip
def test_journal_of_other_settings_is_refused_with_both(changes: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    path = filled(tmp_path, ["a"])
    before = path.read_bytes(), (tmp_path / "run.json").read_bytes()
    said = f"folder '{tmp_path}' holds a run with other settings: {said}. Give another out."
    with pytest.raises(OptionError, match=f"^{re.escape(said)}$"):
        taken(tmp_path, **changes)
    assert (path.read_bytes(), (tmp_path / "run.json").read_bytes()) == before
    with taken(tmp_path) as journal:
        assert journal.count == 1


def test_journal_of_the_same_settings_as_tuples_is_the_same(tmp_path: Path) -> None:
    filled(tmp_path, ["a"])
    with taken(tmp_path, layers=("layer1",)) as journal:
        assert journal.count == 1


@pytest.mark.parametrize("content", [b"", b"\0\0", b"{}", b"[]", b'{"fingerprint": 3}'])
def test_journal_damaged_run_file_is_refused(content: bytes, tmp_path: Path) -> None:
    filled(tmp_path, ["a"])
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(OptionError, match=r"holds a damaged run\.json: .+\. Give another folder\."):
        taken(tmp_path)


def test_journal_index_without_run_file_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, ["a"])
    (tmp_path / "run.json").unlink()
    with pytest.raises(OptionError, match=r"holds the index of a run, .* run\.json is missing\. Give another out\."):
        taken(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.jsonl"]


def test_journal_in_use_is_refused(tmp_path: Path) -> None:
    with taken(tmp_path), pytest.raises(OptionError, match=rf"in use by another run \(pid {os.getpid()} on "):
        taken(tmp_path, tile=3)
    taken(tmp_path).close()


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 1), (1, 1), (3, 2), (0, 0)])
def test_journal_rank_outside_the_world_is_refused(rank: int, world_size: int, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=rf"rank must be from 0 to {world_size - 1} of {world_size} ranks"):
        taken(tmp_path, rank, world_size)


def test_journal_that_cannot_be_written_gives_the_folder_back(tmp_path: Path) -> None:
    (tmp_path / "index.jsonl").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": FINGERPRINT}))
    with pytest.raises(WriteError, match=r"cannot write .*index\.jsonl: Is a directory"):
        taken(tmp_path)
    (tmp_path / "index.jsonl").rmdir()
    taken(tmp_path).close()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        taken(tmp_path / "file")


@pytest.mark.parametrize("name", ["index.jsonl", "index-0-of-2.jsonl", "run.json"])
def test_journal_pipe_in_place_of_a_file_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    filled(tmp_path, ["a"])
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises((WriteError, OptionError), match=r"^[^\n]{1,400}\.$"):
        taken(tmp_path)


def test_journal_rows_whose_files_are_gone_are_taken_out_of_the_index(tmp_path: Path) -> None:
    with taken(tmp_path) as journal:
        for key in "abc":
            (tmp_path / key).write_bytes(key.encode())
            journal.append([(key, key, [{"files": [key], "sizes": [1]}, {"files": []}])])
    lines = (tmp_path / "index.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "b").unlink()
    with taken(tmp_path) as journal:
        assert [journal.is_done(key) for key in "abc"] == [True, False, True]
        assert (journal.count, journal.redone, journal.stem_for("c", "x")) == (2, 1, "c")
        assert (tmp_path / "index.jsonl").read_bytes() == b"".join(lines[:2] + lines[4:])
        journal.append([("b", "b", [{"files": ["b"]}])])
        assert [row["key"] for row in journal.rows()] == ["a", "a", "c", "c", "b"]
    (tmp_path / "b").write_bytes(b"older rows do not say how large")
    with taken(tmp_path) as journal:
        assert (journal.count, journal.redone) == (3, 0)


def test_journal_full_disk_keeps_what_there_was(tmp_path: Path) -> None:
    path = filled(tmp_path, ["a"])
    code = """
import json, resource, sys
from pathlib import Path
from cnnviz_fast.errors import WriteError
from cnnviz_fast.runs.folder.journal import Journal
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
with Journal(folder, json.loads(sys.argv[3])) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        journal.append([("b", "b", [{"layer": "x" * 100}]), ("c", "c", [{"layer": "x" * 100}])])
    except WriteError as error:
        print(error)
    assert not journal.is_done("b") and not journal.is_done("c")
"""
    before = path.read_bytes()
    for room in (1, 50, 160):
        process = Python("-c", code, str(tmp_path), str(len(before) + room), json.dumps(FINGERPRINT))
        assert (process.end(), process.said) == (0, "")
        assert process.printed == f"cannot write {path}: File too large.\n"
        assert path.read_bytes() == before


def test_stems_are_never_another_images(tmp_path: Path) -> None:
    def sha(key: str, digits: int) -> str:
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:digits]

    with taken(tmp_path) as journal:
        journal.append([("x/Cat.png", "Cat", rows("a"))])
    with taken(tmp_path) as journal:
        assert journal.stem_for("x/Cat.png", "other") == "Cat"
        assert journal.stem_for("y/cat.png", "cat") == f"cat-{sha('y/cat.png', 8)}"
        assert journal.stem_for("y/cat.png", "cat") == f"cat-{sha('y/cat.png', 8)}"
        assert journal.stem_for("dog.png", "dog") == "dog"
        assert journal.stem_for("DOG.png", "DOG") == f"DOG-{sha('DOG.png', 8)}"
        # One that is made to look like another with its digits.
        evil, key = f"bird-{sha('z/bird.png', 8)}", "z/bird.png"
        journal.append([("bird.png", "bird", rows("a")), (f"{evil}.png", evil.upper(), rows("a"))])
        assert journal.stem_for(key, "bird") == f"bird-{sha(key, 16)}"
        # Digits that are there already are not put behind themselves.
        assert journal.stem_for(key, evil) == f"bird-{sha(key, 16)}"
        journal.append([(f"e{digits}", f"fish-{sha('fish', digits)}", []) for digits in (8, 16, 24)])
        journal.append([("e0", "fish", [])])
        with pytest.raises(InputError, match="image 'fish' has no name that is not another image's"):
            journal.stem_for("fish", "fish")


def test_ranks_read_each_others_files_and_change_their_own_alone(tmp_path: Path) -> None:
    filled(tmp_path, ["a"])
    first = filled(tmp_path, ["b", "c"], 0, 2)
    os.truncate(first, first.stat().st_size - 1)  # c is not finished
    torn = first.read_bytes()
    filled(tmp_path, ["d"], 1, 2)
    for rank, world_size in ((1, 2), (0, 3), (0, 1)):
        with taken(tmp_path, rank, world_size) as journal:
            assert [journal.is_done(key) for key in "abcd"] == [True, True, False, True]
            assert (journal.count, journal.redone) == (3, 0)
            assert journal.stem_for("b", "new") == f"s-{hashlib.sha256(b'b').hexdigest()[:8]}"
        assert first.read_bytes() == torn
    with taken(tmp_path, 0, 2) as journal:
        assert (journal.count, journal.redone) == (3, 1)
        assert [row["key"] for row in journal.rows()] == ["b", "b"]


def test_journal_of_a_killed_process_has_what_it_said_was_finished(tmp_path: Path) -> None:
    code = """
import itertools, json, sys
from pathlib import Path
from cnnviz_fast.runs.folder.journal import Journal
journal = Journal(Path(sys.argv[1]), json.loads(sys.argv[2]))
for i in itertools.count(journal.count):
    journal.append([(f"{i}.png", str(i), [{"layer": "x" * 5000}] * 3)])
    print(i, flush=True)
"""
    for lines in (1, 40, 7):
        process = Python("-c", code, str(tmp_path), json.dumps(FINGERPRINT))
        wait_until(lambda process=process, lines=lines: process.printed.count("\n") >= lines)
        process.kill()
        process.end()
        said = list(map(int, process.printed.split()))
        with taken(tmp_path) as journal:
            assert journal.count - said[-1] in (1, 2)  # one may have been finished and not said
            assert all(journal.is_done(f"{i}.png") for i in range(journal.count))
            assert sum(1 for _ in journal.rows()) == 3 * journal.count


def test_journal_is_shared_by_threads(tmp_path: Path) -> None:
    with taken(tmp_path) as journal:

        def finish(i: int) -> None:
            key = f"{i % 300}.png"
            journal.append([(key, journal.stem_for(key, "same"), rows("a", "b"))])
            journal.fail(key, key, "x" * 100)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(finish, range(600)))
        assert journal.count == 300
        assert len({row["stem"] for row in journal.rows()}) == 300
        assert len((tmp_path / "failed.jsonl").read_text().splitlines()) == 600
    with taken(tmp_path) as journal:
        assert (journal.count, journal.redone) == (300, 0)


def test_ranks_start_at_once(tmp_path: Path) -> None:
    code = """
import json, sys
from pathlib import Path
from cnnviz_fast.runs.folder.journal import Journal
print("ready", flush=True)
sys.stdin.readline()
try:
    with Journal(Path(sys.argv[1]), json.loads(sys.argv[3]), rank=int(sys.argv[2]), world_size=4) as journal:
        journal.append([(sys.argv[2], sys.argv[2], [{}])])
        print("done", flush=True)
        sys.stdin.read()
except ValueError as error:
    print(error, flush=True)
"""
    for odd in (FINGERPRINT, FINGERPRINT | {"tile": 7}):
        folder = tmp_path / str(odd["tile"])
        arguments = [[str(folder), str(rank), json.dumps(odd if rank == 3 else FINGERPRINT)] for rank in range(4)]
        together = [Python("-c", code, *each) for each in arguments]
        for process in together:
            wait_until(lambda process=process: process.printed == "ready\n")
        for process in together:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in together:
            wait_until(lambda process=process: process.printed.count("\n") == 2)
        assert [(process.end(), process.said) for process in together] == [(0, "")] * 4
        said = [process.printed.splitlines()[1] for process in together]
        if odd == FINGERPRINT:
            assert said == ["done"] * 4
        else:  # whoever was first is done, and those of the other settings are refused
            assert said[0] == said[1] == said[2]
            assert sorted(text.split()[-1] for text in (said[0], said[3])) == ["done", "out."]
            assert {"tile: 7 here, 56 there", "tile: 56 here, 7 there"} & set(
                re.findall(r"tile: .*? there", "".join(said))
            )
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


TORN = b'{"key": "torn", "stem": "t", "part": [0, 2]}\n' * 2

STEPS = st.one_of(
    st.lists(st.text("aAbé\udcff/\n", max_size=3), max_size=3, unique=True),  # keys that are finished together
    st.tuples(st.integers(0, len(TORN)), st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)])),  # a crash, who comes next
)


@given(steps=st.lists(STEPS, max_size=15))
def test_journal_keeps_exactly_what_was_finished(steps: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    stems: dict[str, str] = {}
    rank, world_size = 0, 1
    journal = taken(folder, rank, world_size)
    try:
        for step in steps:
            if isinstance(step, list):
                entries = [(key, journal.stem_for(key, key.replace("/", "-")), rows(*key)) for key in step]
                journal.append(entries)
                for key, stem, _ in entries:
                    assert stems.setdefault(key, stem) == stem
            else:
                journal.close()
                torn, next_one = step
                with open(folder / name_of("index", rank, world_size), "ab") as file:
                    file.write(TORN[:torn])
                rank, world_size = next_one
                journal = taken(folder, rank, world_size)
            assert journal.count == len(stems)
            assert all(map(journal.is_done, stems))
            assert not journal.is_done("torn")
            assert {row["key"] for row in journal.rows()} <= set(stems)
    finally:
        journal.close()
    folded = [stem.casefold() for stem in stems.values()]
    assert len(set(folded)) == len(folded)
