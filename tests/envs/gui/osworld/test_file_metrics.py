"""OSWorld's metrics of images, archives and documents, on files of our own."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mmturn.envs.gui.osworld.metrics import METRICS
from mmturn.envs.gui.osworld.metrics.reading import Unreadable
from mmturn.errors import NotRunnable


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def picture(folder: Path, name: str, shade: int = 200, size: tuple[int, int] = (64, 48), mirror: bool = False) -> str:
    image = Image.new("RGB", size, (shade, shade // 2, shade // 3))
    ImageDraw.Draw(image).ellipse((5, 5, size[0] // 2, size[1] - 5), fill=(shade // 4, 20, 10))
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else image
    image.save(folder / name)
    return str(folder / name)


def test_images(tmp_path: Path):
    one, same = picture(tmp_path, "a.png"), picture(tmp_path, "b.png")
    dark, mirrored = picture(tmp_path, "c.png", 150), picture(tmp_path, "d.png", mirror=True)
    assert METRICS["compare_images"](one, same) == pytest.approx(1.0)
    assert METRICS["compare_images"](one, mirrored) < 0.9
    assert METRICS["compare_images"](one, mirrored, reference_base_result=0.95) == 0.0
    assert METRICS["compare_image_list"]([one], [same]) == 1.0 and METRICS["compare_image_list"](one, dark) == 0.0
    assert METRICS["check_structure_sim"](one, same) == 1.0 and METRICS["check_structure_sim"](one, mirrored) == 0.0
    assert METRICS["check_image_mirror"](mirrored, one) == 1.0 and METRICS["check_image_mirror"](one, one) == 0.0
    assert METRICS["check_brightness_decrease_and_structure_sim"](dark, one) == 1.0
    assert METRICS["check_brightness_decrease_and_structure_sim"](one, dark) == 0.0
    assert METRICS["decrease_brightness"](one, dark) == 1.0 and METRICS["decrease_brightness"](dark, one) == 0.0
    assert METRICS["check_contrast_increase_and_structure_sim"](one, dark) == 1.0
    assert METRICS["check_image_size"](one, {"width": 64}) == 1.0
    assert METRICS["check_image_size"](one, {"width": 64, "height": 1}) == 0.0
    assert METRICS["check_image_file_size"](one, {"max_size": 10}) == 0.0
    large = str(tmp_path / "e.png")
    with Image.open(one) as image:
        image.resize((128, 96), Image.Resampling.BICUBIC).save(large)
    assert METRICS["check_structure_sim_resized"](one, large) == 1.0
    assert METRICS["check_structure_sim"](one, large) == 0.0


def grey(folder: Path, name: str, saturation: int) -> str:
    Image.new("HSV", (32, 32), (30, saturation, 200)).convert("RGB").save(folder / name)
    return str(folder / name)


def test_saturation(tmp_path: Path):
    pale, strong = grey(tmp_path, "p.png", 40), grey(tmp_path, "s.png", 200)
    assert METRICS["increase_saturation"](pale, strong) == 1.0 and METRICS["increase_saturation"](strong, pale) == 0.0
    assert METRICS["check_saturation_increase_and_structure_sim"](strong, pale) == 1.0
    assert METRICS["check_saturation_increase_and_structure_sim"](pale, strong) == 0.0


def archive(folder: Path, name: str, **files: str) -> str:
    with zipfile.ZipFile(folder / name, "w") as target:
        for path, text in files.items():
            target.writestr(path.replace("__", "/").replace("_", "."), text)
    return str(folder / name)


def test_archives(tmp_path: Path):
    one, same = (
        archive(tmp_path, "a.zip", d__a_txt="x", d__b_txt="y"),
        archive(tmp_path, "b.zip", d__a_txt="x", d__b_txt="y"),
    )
    other = archive(tmp_path, "c.zip", d__a_txt="x", d__b_txt="z")
    assert METRICS["compare_zip_files"](one, same) == 1.0 and METRICS["compare_zip_files"](one, other) == 0.0
    assert METRICS["compare_archive"](one, same, file_path="d") == 1.0
    assert METRICS["compare_archive"](one, other, file_path="d", file_type="text") == 0.5
    with pytest.raises(NotRunnable, match="table"):
        METRICS["compare_archive"](one, same, file_path="d", file_type="table")
    with pytest.raises(Unreadable):
        METRICS["compare_archive"](written(tmp_path, "no.zip", "x"), same, file_path="d")


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def document(folder: Path, name: str, *paragraphs: str, cell: str = "c") -> str:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    table = f"<w:tbl><w:tr><w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as target:
        target.writestr("word/document.xml", f"<w:document {W}><w:body>{body}{table}</w:body></w:document>")
    (folder / name).write_bytes(data.getvalue())
    return str(folder / name)


def test_documents(tmp_path: Path):
    compare = METRICS["compare_docx_files"]
    one, other = document(tmp_path, "a.docx", "Hello", "World"), document(tmp_path, "b.docx", "World", "", "hello")
    assert compare(one, one) == 1.0 and compare(one, other) == 0.0
    assert compare(one, other, ignore_order=True, ignore_case=True, delete_empty_lines=True) == 0.0, "sorted by case"
    swapped = document(tmp_path, "c.docx", "World", "Hello", cell="d")
    assert compare(one, swapped, ignore_order=True) == 1.0
    assert compare(one, document(tmp_path, "d.docx", "Hello  World"), ignore_blanks=True) == 1.0
    assert compare(one, document(tmp_path, "d.docx", "Hello  World"), ignore_blanks=False) == 0.0
    assert 0 < compare(one, other, fuzzy_match=True) < 1
    assert METRICS["compare_docx_lines"](one, swapped) == 1.0 and METRICS["compare_docx_lines"](one, other) == 0.0
    assert METRICS["compare_docx_tables"](one, other) == 1.0 and METRICS["compare_docx_tables"](one, swapped) == 0.0
    with pytest.raises(Unreadable):
        compare(written(tmp_path, "x.docx", "no document"), one)
