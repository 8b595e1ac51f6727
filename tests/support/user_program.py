"""A user's program that calls every public function, as mypy strict reads it. Each `ignore` stands at a mistake.


`test_public_surface` has mypy read this file, and refuses an `ignore` of what is no mistake: so each shows that an
option that is misspelt, or of another type, is found before the program runs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import cnnviz_fast as cf


def look(path: Path) -> list[Path]:
    model: cf.LoadedModel = cf.load_model("resnet50", weights="none", seed=0)
    batch: torch.Tensor = cf.load_images(path, model)
    names: list[str] = [info.name for info in cf.list_layers(model)]
    maps = cf.capture(model, batch, [*names[:2], -1])
    cf.capture_stream(model, batch, "type:Conv2d", lambda layer, output: print(layer, output.shape))

    sheet: cf.Sheet = cf.render(maps["layer4"][0], tile=224, normalize="layer", topk=12, rank="variance", label=True)
    cf.render(maps["layer4"][0], tile="56x112", grid=(2, None), channels="0-63,128", reduce="sum,max", beside=True)
    fields = cf.receptive_field(model, ["layer4"], effective=0.95)
    field: cf.ReceptiveField | None = fields["layer4"] if isinstance(fields, dict) else None
    cf.render(maps["layer4"][0], align="field", field=field)
    cf.render(maps["layer4"][0], tiel=224)  # type: ignore[call-arg]
    cf.render(maps["layer4"][0], normalize="chanel")  # type: ignore[arg-type]
    cf.save_sheet(maps["layer4"][0], path.with_suffix(".png"), scale=3, colormap="magma")
    cf.save_sheet(maps["layer4"][0], path.with_suffix(".png"), gap=1.5)  # type: ignore[arg-type]
    tiles: list[Path] = cf.save_tiles(maps["layer4"][0], path.parent, name="{channel}.png", tile=96)
    cf.save_tiles(maps["layer4"][0], path.parent, threads=None, workers=2)  # type: ignore[call-arg]
    for each in cf.render_batch(maps, tile=56, align="left"):
        print(each.manifest["layer"], each.palette.shape)
    plane: torch.Tensor = cf.render_index(maps["layer4"], tile=56)
    comparison: cf.Comparison = cf.compare(
        maps["layer4"][0], maps["layer4"][0], tile=56, gap=2, label=True, title="{layer}"
    )
    cf.compare(maps["layer4"][0], maps["layer4"][0], topk=3)  # type: ignore[call-arg]
    report: cf.LayerReport = cf.layer_report(maps["layer4"][0])
    print(sheet.index.shape, plane.shape, comparison.manifest["most_changed"], report.lines())

    heat = cf.attribute(model, batch, "gradcam", "layer4", target=["top", 281, ("layer3", 12)])
    cf.attribute(model, batch, "gradcam", lyaer="layer4")  # type: ignore[call-arg]
    cf.attribute(model, batch, "guided", target=("layer3", "0-63", "max"), chunk=8)
    cf.attribute(model, batch, "integrated-gradients", steps=64, baseline=batch.mean((0, 2, 3), keepdim=True)[0])
    cf.attribute(model, batch, "smoothgrad", noise="little")  # type: ignore[arg-type]
    print(heat if isinstance(heat, torch.Tensor) else list(heat))

    strongest: cf.Maximized = cf.maximize(model, "layer3", "0-7", at="center", size=96, steps=32)
    cf.maximize(model, classes=["tabby", 281], jiter=4)  # type: ignore[call-arg]
    strongest.sheet(tile=96, grid="2x4").save(path.with_name("maximized.png"))
    inverted: cf.Inverted = cf.invert(model, batch, ["conv1", "layer1"], steps=0)
    inverted.sheet(name="cat").save(path.with_name("inverted.png"))
    print(strongest.digests(), cf.invert(model, maps, smooth=0.1).psnr["layer4"])

    packed: Path = cf.save_atlas(maps["layer4"][0], path.with_suffix(".atlas"), provenance=cf.Provenance(model="own"))
    atlas: cf.Atlas = cf.read_atlas(packed)
    print(atlas.maps.shape)
    page: Path = cf.save_page(maps, path.with_suffix(".html"), photos=[path], title="cat", similarity=True)
    shown: cf.PageView = cf.view(atlas, height_px=500)
    cf.save_page(maps, path, titel="cat")  # type: ignore[call-arg]
    print(page, shown.save(path.parent / "folder"))
    return tiles


def run(module: nn.Module, folder: Path) -> None:
    sheets: list[cf.Sheet] = cf.visualize(module, folder / "cat.jpg", "layer4", out=folder, tile=56, overlay=True)
    summary: cf.RunSummary = cf.run(module, folder, ["layer4"], folder / "run", save=["sheets", "statistics"], tile=56)
    cf.run(module, folder, ["layer4"], folder / "run", save="statistics", bacth=4)  # type: ignore[call-arg]
    if summary.statistics is not None:
        statistics: cf.LayerStatistics = cf.read_statistics(summary.statistics)["layer4"]
        print(statistics.mean)
    top = cf.TopResponses(512, k=9, by="max")
    responses: torch.Tensor = top.update(torch.rand(2, 512, 7, 7), ["cat.jpg", "dog.jpg"])
    print(responses.shape, top.values.shape, top.images[0], cf.read_top(folder / "run")["layer4"].positions)
    patches: cf.PatchSheet = cf.patch_sheet(folder / "run", "layer4", channels="0-63", tile=96, mean_patch=True)
    print(patches.save(folder / "patches.png"), patches.table[0]["image"], patches.missing)
    infos: list[cf.ParameterInfo] = cf.parameter_statistics(module)
    print(len(sheets), infos[0].name, cf.__version__)
    options = cf.RenderOptions(tile="56", grid="2x6", channels="0-63", percentile=None, reduce="sum", beside=True)
    numbers: tuple[int, ...] | None = options.channels
    rows, cols = options.grid
    print(options.tile, numbers, rows + cols, cf.LayerInfo, cf.CnnvizError)
    print(cf.RenderOptions(grid=[2, 6], channels=range(4)), cf.RenderOptions(channels=["0-3", 9], vmin="-1"))
    print(cf.PreprocessOptions(size="384x384", mean="0.5,0.5,0.5").size, cf.PreprocessOptions(size=224, std=[1, 1, 1]))
    cf.RenderOptions(gird="2x6")  # type: ignore[call-arg]
    cf.RenderOptions(normalize="chanel")  # type: ignore[arg-type]
    cf.PreprocessOptions(interpolation="bilinera")  # type: ignore[arg-type]
