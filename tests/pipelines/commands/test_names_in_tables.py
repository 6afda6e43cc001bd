"""Names are shown as they are, whatever Rich would make of them as markup."""

import datetime
import io
import types

import pytest
from PIL import Image

from components.vertex import endpoints
from marco_data import contract, name_tables, shards
from pipelines.commands import data, deploy

NAMES = ["[Bio] Core [/dim]", "note :warning: [red]", "[/]", "a[b]c", r"back\[slash]"]


@pytest.mark.parametrize("name", NAMES)
def test_data_inspect(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "250")
    picture = io.BytesIO()
    Image.new("RGB", (30, 20)).save(picture, "JPEG")
    record = contract.build_example(
        encoded=picture.getvalue(),
        image_format="JPEG",
        height=20,
        width=30,
        filename="a.jpg",
        image_id=1,
        label=0,
        label_text=f"class {name}",
        label_raw=0,
        source=0,
    )
    folder = tmp_path / f"set {name.replace('/', '')}"
    folder.mkdir()
    shards.write_shards(folder, "train", [record.SerializeToString()], 10)
    name_tables.write_tables(folder, {0: name}, raw_labels={0: f"raw {name}"})
    quarantine = f'shard,offset,index,image_id,reason,detail\n"s {name}",0,0,1,bad_checksum,"detail {name}"\n'
    (folder / "quarantine.csv").write_text(quarantine)
    data.inspect([str(folder)], raw_labels=True)
    shown = capsys.readouterr().out
    for text in (f" {name} ", f"class {name}", f"raw {name}", f"s {name}", f"detail {name}", f"of {folder}"):
        assert text in shown.replace("\n", " ")


@pytest.mark.parametrize("name", NAMES)
def test_deploy(capsys, monkeypatch, name):
    monkeypatch.setattr(endpoints, "list_versions", lambda *_: [])
    monkeypatch.setattr(deploy, "_role", lambda *_: name)
    model = types.SimpleNamespace(
        model="m", version=name, share=100, created=str(datetime.date(2026, 1, 1)), machine=name
    )
    state = types.SimpleNamespace(display_name=name, deployed=[model])
    place = types.SimpleNamespace(project="p", location="l", parent="x")
    deploy.show_endpoint(types.SimpleNamespace(place=place), state)
    assert capsys.readouterr().out.count(name) == 4
