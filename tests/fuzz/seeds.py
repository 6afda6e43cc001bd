"""The seeds of each target: those made by code here, and the files in `found/TARGET`, inputs of earlier findings.

A seed named after a finding of a review (`h2_…`, `m2_…`) is an input of that kind.
"""

import base64
import gzip
import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from marco_data import contract, tfrecord

FOUND = Path(__file__).parent / "found"


def of_target(target: str) -> dict[str, bytes]:
    """Returns the seeds of a target by name."""
    makers = {
        "records": _records,
        "examples": _examples,
        "headers": pictures,
        "images": pictures,
        "places": _places,
        "names": _names,
        "tables": _tables,
        "scores": _scores,
        "presets": _presets,
        "server": _server,
        "parquet": _parquet,
        "sheets": _sheets,
        "descriptions": _descriptions,
        "bundles": _bundles,
    }
    made = {
        name: seed.encode("utf-8", "surrogateescape") if isinstance(seed, str) else seed
        for name, seed in makers[target]().items()
    }
    return made | {path.name: path.read_bytes() for path in sorted((FOUND / target).glob("*"))}


# Images


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    """Returns a small image file of a gradient; `size`: width and height."""
    count = len(Image.new(mode, (1, 1)).getbands())
    rows = np.arange(size[1] * size[0] * count, dtype=np.uint16).reshape(size[1], size[0], count)
    pixels = Image.fromarray((rows[..., 0] * 97).astype(np.uint16)) if mode == "I;16" else Image.fromarray(
        (rows % 251).astype(np.uint8).squeeze(-1) if count == 1 else (rows % 251).astype(np.uint8),
    ).convert(mode) if mode in ("1", "P") else Image.fromarray(
        (rows % 251).astype(np.uint8).squeeze(-1) if count == 1 else (rows % 251).astype(np.uint8), mode
    )  # fmt: skip
    file = io.BytesIO()
    pixels.save(file, kind, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Returns small pictures of all formats that are read, and those of the findings."""
    jpeg, progressive = picture("JPEG"), picture("JPEG", progressive=True)
    png = picture("PNG")
    fake_frame = b"\xff\xc0" + struct.pack(">HBHHB3B", 11, 8, 16, 16, 1, 1, 0x11, 0)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"
    exif = Image.Exif()
    exif[274] = 6
    return {
        "jpeg": jpeg,
        "jpeg_progressive": progressive,
        "jpeg_grey": picture("JPEG", "L"),
        "jpeg_cmyk": picture("JPEG", "CMYK"),
        "jpeg_turned": picture("JPEG", exif=exif),
        "jpeg_restarts": picture("JPEG", restart_marker_rows=1),
        "jpeg_without_end": jpeg[:-2],
        "png": png,
        "png_palette": picture("PNG", "P"),
        "png_transparent": picture("PNG", "RGBA"),
        "png_grey_16": picture("PNG", "I;16"),
        "png_bits": picture("PNG", "1"),
        "png_turned": picture("PNG", exif=exif),
        "tiff": picture("TIFF"),
        "tiff_lzw": picture("TIFF", compression="tiff_lzw"),
        "tiff_deflate_16": picture("TIFF", "I;16", compression="tiff_adobe_deflate"),
        "tiff_jpeg": picture("TIFF", compression="jpeg"),
        "tiff_group4": picture("TIFF", "1", compression="group4"),
        "tiff_pages": picture("TIFF", "L", save_all=True, append_images=[Image.new("L", (3, 2))]),
        "tiff_big_endian": b"MM\0*" + struct.pack(">IH", 8, 8) + b"".join(
            struct.pack(">HHII", tag, 4, 1, value) for tag, value in
            ((256, 4), (257, 2), (258, 8), (259, 1), (262, 1), (273, 110), (278, 2), (279, 8))
        ) + struct.pack(">I", 0) + bytes(range(8)),
        "bmp": picture("BMP"),
        "bmp_palette": picture("BMP", "P"),
        "bmp_bits": picture("BMP", "1"),
        # H2: our reader took FF 00 for a segment and jumped over the true frame to one in a comment.
        "h2_true_frame_in_no_segment": jpeg[:2] + b"\xff\0" + struct.pack(">H", 13) + _sized(jpeg, 13370, 13370)[2:20]
        + b"\xff\xfe" + struct.pack(">H", 15) + fake_frame + _sized(jpeg, 13370, 13370)[2:],
        "h2_frame_in_a_comment": jpeg[:2] + b"\xff\xfe" + struct.pack(">H", 15) + fake_frame + jpeg[2:],
        "h2_stray_bytes": jpeg[:2] + b"\x12\x34\xff\0" + jpeg[2:],
        "h2_two_headers_png": png[:33] + _png_header(13370, 13370) + png[33:],
        "found_png_two_headers": png[:33] + _png_header(48, 32) + png[33:],
        "found_png_late_header": png[:8] + _chunk(b"eXIf", bytes(13)) + png[8:],
        "found_png_long_header": png[:8] + _chunk(b"IHDR", png[16:29] + bytes(7)) + png[33:],
        "found_png_long_pixels": png[:33] + b"\x01" + png[34:],
        "found_png_signature": png.replace(b"\r\n", b"\0\n", 1),
        "h2_beyond_the_limit": _sized(jpeg, 13370, 13370),
        # H3: each scan, however short, costs a pass over the whole image.
        "h3_many_scans": progressive[:-2] + scan * 200 + progressive[-2:],
        # L5: libjpeg fills up with grey what is missing.
        "l5_grey_fill": _sized(jpeg, 710, 700),
    }  # fmt: skip


def _sized(jpeg: bytes, height: int, width: int) -> bytes:
    """Returns a JPEG whose frame header states another size."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def _png_header(width: int, height: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">II5B", width, height, 8, 2, 0, 0, 0))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# Records


def example(**changes: object) -> bytes:
    """Returns a serialized record of a small JPEG."""
    values: dict[str, object] = {
        "encoded": picture("JPEG"), "image_format": "JPEG", "height": 16, "width": 24, "filename": "P1_A01_1.jpg",
        "image_id": 7, "label": 0, "label_text": "Clear", "label_raw": 3, "source": 1, "plate": "P1",
    }  # fmt: skip
    return bytes(contract.build_example(**{**values, **changes}).SerializeToString(deterministic=True))  # type: ignore[arg-type]


def _without(name: str) -> bytes:
    """Returns a record one of whose features has no value."""
    record = contract.parse_example(example())
    record.features.feature[name].Clear()
    return bytes(record.SerializeToString(deterministic=True))


def _examples() -> dict[str, bytes]:
    return {
        "sound": example(),
        "png": example(encoded=picture("PNG"), image_format="PNG"),
        "no_plate": example(plate=""),
        "many_values": example() + example(image_id=8),
        "h2_header": example(encoded=pictures()["h2_true_frame_in_no_segment"]),
        "h3_scans": example(encoded=pictures()["h3_many_scans"]),
        "m3_no_source": _without(contract.SOURCE),
        "m3_no_image": _without(contract.ENCODED),
        "name_not_utf8": b"\n\x08\n\x06\n\x02\xff\xfe\x12\x00",
    }


def _records() -> dict[str, bytes]:
    records = [example(), b"", b"abc"]
    shard = b"".join(map(tfrecord.frame, records))
    zeros = gzip.compress(bytes(2 << 20), mtime=0)
    return {
        "shard": shard,
        "gzip": gzip.compress(shard, mtime=0),
        "zlib": zlib.compress(shard),
        "gzip_members": gzip.compress(shard, mtime=0) + bytes(5) + gzip.compress(shard, mtime=0),
        "cut": shard[:-9],
        "bad_data": shard[:20] + b"\0" + shard[21:],
        "bad_length": shard + b"\1" * 12,
        "looks_like_zlib": b"\x78\x9c" + b"not compressed",
        "long_record": struct.pack("<Q", 1 << 40)
        + struct.pack("<I", tfrecord.masked_crc32c(struct.pack("<Q", 1 << 40))),
        # M2: a rest that inflates to a thousand times its size.
        "m2_zeros": zeros,
        "m2_zeros_after_a_record": gzip.compress(shard, mtime=0) + zeros,
    }


# Names and places


def _places() -> dict[str, str]:
    return {
        "rockmaker": "WellImages/123/plateID_123/batchID_45/wellNum_7/profileID_1/d1_r123_ef.jpg",
        "minstrel": "a_b_c_d_e_f_g_00012_004_100716_01_06_01_x_y_1_2_RDI.jpg",
        "dated": "P1_A01-1_2024-01-02T10-20_UV.jpg",
        "formulatrix": "123_G06-2_abc_4.png",
        "hwmri": "X000001234000120050905203200-pol.jpg",
        "xchem": "plates/P1/P1_01A_2.jpg",
        "vmxi": "data/imaging/1234/5/678th.jpg",
        "folder": "Set/P 7/Day 3/Crystals/A1.tif",
        "windows": "C:\\Users\\x\\P1\\B2.bmp",
        "bucket": "gs://bucket/folder/P1_B02_1.jpg",
        "l1_formula": "=cmd|' /C calc'!A0_A01_x_1.jpg",
        "not_utf8": "pl\udcf6_A01_1.jpg",
        "superscript": "P1_A²_²_².jpg",
        "long": "a_" * 200 + "A01.jpg",
    }


def _names() -> dict[str, str]:
    return {
        "expression": "(?P<plate>[^_]+)_(?P<well>[A-H][0-9]+)\nP1_A01.jpg\nx/P2_B03.png",
        "all_parts": "(?P<plate>.)(?P<well>..)(?P<drop>.)(?P<inspection>.)(?P<date>.{8})(?P<light>.*)\nPA1d320240102UV",
        "unknown_part": "(?P<plates>.)\nx",
        "no_part": "x\nx",
        "not_an_expression": "(?P<plate>[\nx",
        "table": ".csv\npath,plate,well,drop,date\na.jpg,P1,A1,1,2024-01-02\nx/b.jpg,P1,0105,,20240102T1020",
        "table_semicolons": ".csv\nsep=;\nfilename;plate;inspection\na.jpg;P1;3",
        "found_zero_separator": ".csv\nsep=\0\nfilename;plate\na.jpg;P1",
        "table_twice": ".csv\npath,plate\na.jpg,P1\n./a.jpg,P2",
        "table_short": ".csv\npath,plate\na.jpg",
        "l3_superscript": ".csv\npath,well,inspection\na.jpg,²,²",
    }


# Tables


def _tables() -> dict[str, str]:
    """The first character chooses the reader: see `targets.read_tables`."""
    terf = "image_path,image_id,label_id,label_text,label_raw,source\n"
    return {
        "simple": "0filename,label\na.jpg,Clear\nb.png,crystals\n",
        "plates": "0filename,label,plate,split\na.jpg,Clear,P1,train\nb.png,Crystals,,eval\n",
        "terf": f"0{terf}a.jpg,1,0,Clear,3,1\nb.jpg,2,1,Crystals,4,CSIRO\n",
        "semicolons": "0sep=;\nfilename;label\n\\x\\a.jpg;Other;;\n",
        "raw": "1filename,label\na.jpg,sparkling\nb.jpg,7\n",
        "terf_raw": f"1{terf}a.jpg,1,,,3,1\nb.jpg,2,,,,\n",
        "numbers": "2id,name\n0,Merck\n1,CSIRO\n",
        "names": "2name\nMerck\nCSIRO\n",
        "overlay": "3image_id,label,rater,date\n7,Clear,ann,2026-11-26\n7,Other,bob,11/27/2026 10:20 PM\n",
        "overlay_conflict": "3image_id,label,rater,date\n7,Clear,ann,1.2.2026\n7,Other,bob,1 Feb 2026\n",
        "l2_paths": "0filename,label\n../secret.jpg,Clear\n/dev/zero,Clear\n/dev/null,Other\n",
        "l3_superscript_label": f"0{terf}a.jpg,1,²,²,²,²\n",
        "l3_superscript_id": f"0{terf}a.jpg,²,0,Clear,3,1\n",
        "l3_superscript_raw": "1filename,label\na.jpg,²\n",
        "l3_superscript_number": "2²,Merck\n",
        "l3_superscript_overlay": "3image_id,label,rater,date\n²,Clear,ann,²/²/2026\n",
        "l3_beyond_int64": f"0{terf}a.jpg,99999999999999999999,0,Clear,99999999999999999999,1\n",
        "l3_long_cell": "0filename,label\n" + "a" * 131_100 + ",Clear\n",
        "l3_long_number": "3image_id,label,rater,date\n" + "1" * 5_000 + ",Clear,ann,2026-11-26\n",
        "found_long_name": "0filename,label\n" + "a" * 300 + ",Clear\n",
        "found_long_name_of_windows": "0filename,label\n" + "a\\" * 150 + "a" * 300 + ",Clear\n",
        "found_zero_separator": "0sep=\0\nfilename;label\na.jpg;Clear\n",
        "found_zero_byte": "0filename,label\na\0.jpg,Clear\n",
        "l1_formula": "3image_id,label,rater,date\n7,=1+1,@SUM(1+1),2026-11-26\n",
    }


def _scores() -> dict[str, str]:
    """The first character chooses format and options: see `targets.continue_table`."""
    header = "path,plate,well,drop,class,clear,crystals,other,precipitate,model,inspection,date,flag,bytes,modified\r\n"
    row = "a.jpg,P1,A1,,Clear,0.7000000,0.1000000,0.1000000,0.1000000,m,,,,10,2026-11-26T00:00:00.000000Z\r\n"
    entry = dict(zip(header.strip().split(","), row.strip().split(","), strict=True))
    seeds = {f"csv_{number}": f"{number}{header}{row}{row[:30]}" for number in range(4)}
    seeds |= {f"jsonl_{number}": f"{number}{json.dumps(entry)}\n{json.dumps(entry)[:50]}" for number in range(4, 8)}
    return seeds | {
        "other_model": f"0{header}{row}".replace(",m,", ",n,"),
        "no_number": f"0{header}{row}".replace("0.7000000", "x"),
        "more_columns": f"1{header}{row}".replace("\r\n", ",mine\r\n"),
        "l3_long_cell": f"1{header}{row}".replace("a.jpg", "a" * 131_100),
        "json_nested": "5" + "[" * 3000,
        "found_rows_of_other_columns": "4" + json.dumps(entry) + "\n{}\n",
        "found_row_without_columns": "6{}\n",
        "found_partial_of_empty_lines": "2\r\n\r\n",
        "found_partial_without_rows": "6\n",
        "json_numbers": "5" + json.dumps([1, 2]) + "\n",
    }


# Presets


def _presets() -> dict[str, str]:
    """The first character chooses what is read: see `targets.read_presets`."""
    bomb = "\n".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9) if level else 'x'}]" for level in range(9)
    )
    return {
        "preset": "0name: mine\ndata: {source: x, max_pixels: 10}\nthresholds: {accuracy: 0.5}\nrecipe: {steps: 5}\n",
        "sections": "0name: m\nthresholds: {recall/a: 0.5}\nlabels: {classes: [a, b], from_raw: {1: a, x: null}}\n"
        "cluster: {replicas: {chief: 1}}\nvertex: {project: p, location: l}\nmachines: {worker: 2}\n",
        "set": "1recipe.steps=500",
        "set_section": "1labels={scheme: raw}",
        "set_through_value": "1name.x=1",
        "labels": "2labels:\n  scheme: hwmri10\n  from_raw: {1: clear}\n",
        "limits": '3{"least": 1, "most": 2}',
        "l3_open_list": "1recipe.steps=[",
        "l3_date": "1recipe.steps=9999-99-99",
        "l3_hash_key": "1recipe.steps={[1]: 2}",
        "alias_bomb": f"0name: {{}}\n{bomb}\n",
        "alias_bomb_value": f"0{bomb}\nname: *a8\n",
        "alias_circle": "0name: &a [*a]\n",
        "deep": "1recipe.steps=" + "[" * 1200,
        "python": "0name: !!python/object/apply:os.system [id]\n",
        "not_utf8": "0name: \udcff\n",
        "control": "0name: \x01\n",
        "many_keys": "0" + "".join(f"key{number}: {number}\n" for number in range(300)),
        "long_value": "0name: " + "x" * 5000,
    }


# Requests


def request(path: str, body: bytes, **headers: str) -> bytes:
    """Returns a request as the target reads it: the path, a header in each line, an empty line, the body."""
    lines = [path, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\n".join(lines).encode() + b"\n\n" + body


def _server() -> dict[str, bytes]:
    v1, v2, vertex = "/v1/models/marco:predict", "/v2/models/marco/infer", "/predict"
    image = base64.b64encode(picture("PNG", size=(4, 3))).decode()
    document = {"instances": [{"b64": image}, {"image_bytes": {"b64": image[:-9]}}, "x"]}
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [image]}
    packed = picture("PNG", size=(4, 3))
    binary = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": len(packed) + 4}, "data": None}]}
    ).encode()
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "time": "now", "data": document}

    def of_image(encoded: bytes) -> bytes:
        return request(v1, json.dumps({"instances": [{"b64": base64.b64encode(encoded).decode()}]}).encode())

    length = {"inference_header_content_length": str(len(binary))}
    return {
        "v1": request(v1, json.dumps(document).encode(), content_type="application/json"),
        "v1_parameters": request(v1, json.dumps({**document, "signature_name": "x", "parameters": {}}).encode()),
        "v1_event": request(v1, json.dumps(event).encode(), content_type="application/cloudevents+json"),
        "v1_binary_event": request(
            v1, json.dumps(document).encode(), ce_id="1", ce_source="s", ce_specversion="1.0", ce_type="t"
        ),
        "v1_form": request(v1, b"instances=x", content_type="application/x-www-form-urlencoded"),
        "v1_parts": request(v1, b"--x\r\n\r\n--x--", content_type="multipart/form-data; boundary=x"),
        "v1_charset": request(v1, json.dumps(document).encode("utf-16"), content_type="text/json; charset=utf-16"),
        "v1_deep": request(v1, b"[" * 5000),
        "v1_numbers": request(v1, b'{"instances": [1e999, NaN, -0, 99999999999999999999999]}'),
        "v1_long_number": request(v1, b'{"instances": ' + b"1" * 5000 + b"}"),
        "v1_surrogate": request(v1, rb'{"instances": [{"\ud800": 1}], "signature_name": "\ud800\n"}'),
        "v2": request(v2, json.dumps({"id": "a", "inputs": [tensor], "outputs": [{"name": "class"}]}).encode()),
        "v2_nested": request(v2, json.dumps({"inputs": [{**tensor, "shape": [1, 1], "data": [[image]]}]}).encode()),
        "v2_shape": request(v2, json.dumps({"inputs": [{**tensor, "shape": [1e308, 1e308]}]}).encode()),
        "v2_long_shape": request(v2, b'{"inputs": [{"name": "image_bytes", "datatype": "BYTES", "data": [], "shape": ['
                                 + b"9" * 5000 + b"]}]}"),
        "v2_surrogate_id": request(v2, json.dumps({"id": "\ud800", "inputs": [tensor]}).encode()),
        "v2_binary": request(v2, binary + struct.pack("<I", len(packed)) + packed, **length),
        "v2_binary_length": request(v2, binary, inference_header_content_length="\u00b2"),
        "vertex": request(vertex, json.dumps({**document, "parameters": {}}).encode(), content_type="application/json"),
        "metrics": request("/metrics", b"", accept="application/openmetrics-text; version=1.0.0, */*;q=0.1"),
        "found_metrics_version": request("/metrics", b"", accept="application/openmetrics-text; version=x"),
        "other_model": request("/v1/models/x%0a:predict", b"{}"),
        "h2_header": of_image(pictures()["h2_beyond_the_limit"]),
        "h3_scans": of_image(pictures()["h3_many_scans"]),
    }  # fmt: skip


# Files of runs and models


class _Program:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed-by-parquet"),)  # type: ignore[return-value]


def _parquet() -> dict[str, bytes]:
    """The first byte chooses the reader: see `targets.read_parquet`."""
    import pyarrow.parquet

    def file(columns: dict[str, list[object]], metadata: dict[str, object] | None = None) -> bytes:
        table = pyarrow.Table.from_pydict(columns)
        if metadata:
            fields = [field.with_metadata(metadata) for field in table.schema]
            table = table.cast(pyarrow.schema(fields))
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer, compression="none")
        return buffer.getvalue()

    predictions: dict[str, list[object]] = {
        "shard": ["a"], "index": [0], "image_id": [7], "filename": ["f"], "label": [1], "institution": ["i"],
        "imager": ["m"], "scores": [[0.5, 0.5]],
    }  # fmt: skip
    measured: dict[str, list[object]] = {
        "imager": ["m"], "name": ["n"], "reason": [""], "statistics": [[0.5] * 6], "embedding": [[1.0, 2.0]],
        "scores": [[1.0, 0.0]], "thumbnail": [b"x"],
    }  # fmt: skip
    program = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(_Program(), 0),
    }
    return {
        "predictions": b"0" + file(predictions),
        "reference": b"1" + file(measured),
        "reference_ragged": b"1"
        + file({name: cells * 2 for name, cells in measured.items()} | {"scores": [[1.0], []]}),
        "reference_nulls": b"1" + file({name: [None] for name in measured}),
        "h1_program": b"0" + file({"shard": ["a"]}, program),
        "h1_program_in_a_reference": b"1" + file({"name": ["a"]}, program),
        "found_name_not_utf8": b"1" + file(measured).replace(b"imager", b"imag\xff\xfe"),
        "found_ragged_scores": b"0"
        + file({name: cells * 2 for name, cells in predictions.items()} | {"scores": [[1.0], []]}),
        "cut": b"0PAR1 cut",
    }


def _sheets() -> dict[str, str]:
    """The first character chooses what is read: see `targets.read_sheets`."""
    sheet = "0image_id,label,rater,date\n7,Clear,ann,2026-11-26\n8,other,ann,\n"
    return {
        "sheet": sheet,
        "excel": "0sep=;\nfile;image_id;label\nimages/7.jpg;7;Crystals\nimages/8.jpg;1,07695E+15;\n",
        "found_exponent": "0sep=;\nfile;image_id;label\nimages/7.jpg;7;Crystals\nimages/8.jpg;1E+1222222222222;\n",
        "page": "1image,filename,label,rater,predicted\nblake2b:0123456789abcdef,a.jpg,Clear,ann,Other\n",
        "found_page_without_names": "1image,label\nblake2b:x,Clear\n",
        "key": "2image_id,split,old_label,predicted,file\n7,train,Clear,Other,images/7.jpg\n",
        "conflict": sheet + "7,Other,ann,2026-11-27\n",
        "unknown": sheet + "9,Clear,bob,2026-11-27\n7,foggy,bob,\n",
        "dates": "0image_id,label,rater,date\n7,Clear,a,13/01/2026\n8,Clear,a,01/02/2026\n8,Clear,b,Jan 2 2026\n",
        "l1_formula": "0image_id,label,rater,date\n7,Clear,=1+1,2026-11-26\n",
        "l3_superscript": "0image_id,label,rater,date\n²,Clear,²,²\n",
        "l3_long_cell": "0image_id,label,rater\n7,Clear," + "a" * 131_100 + "\n",
        "l3_long_number": "2image_id,split,old_label,predicted\n" + "1" * 5_000 + ",train,Clear,Other\n",
    }


def _descriptions() -> dict[str, bytes]:
    """The first byte chooses the reader: see `targets.read_descriptions`."""
    arrays = io.BytesIO()
    np.savez(arrays, **{"shard-00001-of-00001": np.array([3, 4], np.int64)})
    projection = io.BytesIO()
    np.savez(projection, mean=np.zeros(3, np.float32), components=np.zeros((2, 3), np.float32))
    objects = io.BytesIO()
    np.savez(objects, **{"shard-00001-of-00001": np.array([_Program()], object)})
    checkpoint = io.BytesIO()
    np.savez(checkpoint, step=3, best_step=2, best_accuracy=0.5, arrays=1, history=np.zeros((1, 3)), a=np.zeros(2))
    model = {"classes": ["a", "b"], "name": "m", "temperature": 1.5, "input_size": 599}
    return {
        "model": b"0" + json.dumps(model).encode(),
        "model_numbers": b"0" + json.dumps({"classes": 7, "temperature": []}).encode(),
        "training": b"1" + json.dumps({"tracking_uri": "sqlite:///x", "steps": 7}).encode(),
        "list": b"1[1, 2]",
        "deep": b"1" + b"[" * 3000,
        "long_number": b"1" + b"1" * 5000,
        "push": b"2" + json.dumps({"version": 1}).encode(),
        "found_push_number": b"21.5",
        "index": b"3" + arrays.getvalue(),
        "index_of_a_program": b"3" + objects.getvalue(),
        "reference": b"4" + projection.getvalue(),
        "checkpoint": b"5" + checkpoint.getvalue(),
    }


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _bundles() -> dict[str, bytes]:
    """An index of a checkpoint, which the reader places beside 16 floats of data."""

    def block(entries: list[tuple[bytes, bytes]], compress: bool = False) -> bytes:
        body = b"".join(_varint(0) + _varint(len(key)) + _varint(len(value)) + key + value for key, value in entries)
        body += struct.pack("<II", 0, 1)
        packed = _varint(len(body)) + bytes([63 << 2 | 0]) if compress else b""
        if compress:
            packed = _varint(len(body)) + bytes([60 << 2, len(body) - 1]) + body
        return (packed + b"\1" if compress else body + b"\0") + bytes(4)

    def index(compress: bool) -> bytes:
        shape = b"\x12\x02\x08\x04\x12\x02\x08\x04"
        entry = b"\x08\x01\x12" + _varint(len(shape)) + shape + b"\x20\x00\x28\x40"
        tensors = block([(b"", b"\x08\x01"), (b"a/weights", entry)], compress)
        handles = block([(b"b", _varint(0) + _varint(len(tensors) - 5))])
        footer = (_varint(0) + _varint(0) + _varint(len(tensors)) + _varint(len(handles) - 5)).ljust(40, b"\0")
        return tensors + handles + footer + bytes.fromhex("57fb808b247547db")

    number_for_bytes = index(False).replace(
        b"\x12\x08\x12\x02\x08\x04\x12\x02\x08\x04", b"\x10\x08\x10\x02\x08\x04\x10\x02\x08\x04"
    )
    return {
        "index": index(False),
        "snappy": index(True),
        "empty": b"",
        "footer": bytes(40) + index(False)[-8:],
        "found_number_for_bytes": number_for_bytes,
    }
