import hashlib
import http.server
import io
import shutil
import tarfile
import threading
import time
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lesionkit import datasets
from lesionkit.datasets import DatasetError, InvalidData, MissingData, UnknownDataset, fetching
from lesionkit.datasets import splits as splitting

NAME = "cvc-colondb"
STEMS = tuple(str(number) for number in range(1, 7))


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def picture(seed):
    """A smooth random image: thumbnails of two seeds differ by far more than NEAR_LEVELS."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(blocks, (60, 50), interpolation=cv2.INTER_CUBIC)


def lesion(values=(0, 255), side=20):
    mask = np.full((50, 60), values[0], np.uint8)
    mask[10 : 10 + side, 10 : 10 + side] = values[1]
    return mask


def official_tree():
    """path -> bytes of a tiny data set."""
    tree = {f"images/{stem}.png": png(picture(int(stem))) for stem in STEMS}
    return tree | {f"masks/{stem}.png": png(lesion(side=10 + int(stem))) for stem in STEMS}


def zipped(tree, prefix="Set/"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in tree.items():
            archive.writestr(prefix + path, data)
    return buffer.getvalue()


def put(root, tree):
    for path, data in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@pytest.fixture
def tiny(monkeypatch):
    """CVC-ColonDB shrunk to six images of 60×50 whose checksums are known; no pause between attempts."""
    tree = official_tree()
    digest = {path: hashlib.sha256(data).hexdigest()[:32] for path, data in tree.items()}
    facts = {stem: (digest[f"images/{stem}.png"], digest[f"masks/{stem}.png"]) for stem in STEMS}
    entry = replace(datasets.REGISTRY[NAME], images=len(STEMS), size_wh=(60, 50))
    monkeypatch.setitem(datasets.REGISTRY, NAME, entry)
    monkeypatch.setattr(splitting, "official_files", lambda name: facts)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return tree


class Server(http.server.ThreadingHTTPServer):
    """Serves one archive on 127.0.0.1; the first `breaks` answers end halfway."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.body, self.breaks, self.asked = b"", 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/set.zip"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        body = self.server.body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.server.asked <= self.server.breaks else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def refused(kind, root, url):
    """fetch raises `kind` with one line and leaves nothing behind; returns the line."""
    with pytest.raises(kind) as error:
        datasets.fetch(NAME, root, url)
    assert "\n" not in str(error.value)
    assert not root.exists() or list(root.iterdir()) == []
    return str(error.value)


# --- fetch


def test_fetch_arranges_verifies_and_leaves_nothing_else(tiny, server, tmp_path):
    server.body = zipped(tiny)
    where = datasets.fetch(NAME, tmp_path, server.url)
    assert where == tmp_path / NAME
    assert {str(path.relative_to(where)) for path in where.rglob("*.png")} == set(tiny)
    assert all((where / path).read_bytes() == data for path, data in tiny.items())
    assert list(tmp_path.iterdir()) == [where]


def test_the_authors_address_is_the_default(tiny, server, tmp_path, monkeypatch):
    server.body = zipped(tiny)
    monkeypatch.setitem(datasets.REGISTRY, NAME, replace(datasets.REGISTRY[NAME], url=server.url))
    assert datasets.fetch(NAME, tmp_path).is_dir()


def test_what_is_present_and_sound_is_not_downloaded(tiny, server, tmp_path):
    put(tmp_path / NAME, tiny)
    assert datasets.fetch(NAME, tmp_path, server.url) == tmp_path / NAME
    assert server.asked == 0


def test_what_is_present_and_unsound_is_kept(tiny, server, tmp_path):
    put(tmp_path / NAME, tiny)
    (tmp_path / NAME / "masks" / "3.png").unlink()
    server.body = zipped(tiny)
    with pytest.raises(InvalidData, match=r"move .* away"):
        datasets.fetch(NAME, tmp_path, server.url)
    assert server.asked == 0
    assert (tmp_path / NAME / "images" / "3.png").exists()


def test_a_broken_connection_is_tried_again(tiny, server, tmp_path):
    server.body, server.breaks = zipped(tiny), 1
    datasets.fetch(NAME, tmp_path, server.url)
    assert server.asked == 2
    assert datasets.verify(NAME, tmp_path).ok


def test_a_connection_that_stays_broken_leaves_nothing_and_the_next_fetch_works(tiny, server, tmp_path):
    server.body, server.breaks = zipped(tiny), fetching.ATTEMPTS
    assert "in 3 attempts" in refused(MissingData, tmp_path, server.url)
    assert datasets.fetch(NAME, tmp_path, server.url).is_dir()


def test_no_server(tiny, tmp_path):
    assert "could not be downloaded" in refused(MissingData, tmp_path, "http://127.0.0.1:9/set.zip")


def test_the_rest_of_a_killed_attempt_is_removed(tiny, server, tmp_path):
    put(tmp_path / f".fetching-{NAME}" / NAME, {"images/1.png": b"half", "images/99.png": b"half"})
    server.body = zipped(tiny)
    where = datasets.fetch(NAME, tmp_path, server.url)
    assert not (where / "images" / "99.png").exists()
    assert list(tmp_path.iterdir()) == [where]


def test_archives_from_a_path_or_file_address_as_zip_or_tar(tiny, tmp_path):
    archive = tmp_path / "my set.zip"
    archive.write_bytes(zipped(tiny))
    tar = tmp_path / "set.tar.gz"
    put(tmp_path / "tree", tiny)
    with tarfile.open(tar, "w:gz") as opened:
        opened.add(tmp_path / "tree", "Set")
    for index, url in enumerate((str(archive), archive.as_uri(), tar.as_uri())):
        root = tmp_path / f"root{index}"
        datasets.fetch(NAME, root, url)
        assert datasets.verify(NAME, root) == datasets.Report(True, (), (), len(STEMS))


def test_authors_folder_names_formats_and_mask_names(tiny, tmp_path):
    tree = {"__MACOSX/Original/._1.png": b"junk"}
    for folder, theirs, start in (("images", "Original", ""), ("masks", "Ground Truth", "p")):
        for stem in STEMS:
            tree[f"PNG/{theirs}/{start}{stem}.png"] = tiny[f"{folder}/{stem}.png"]
            tree[f"other/{theirs}/x{stem}.png"] = tiny[f"{folder}/{stem}.png"]
    (tmp_path / "a.zip").write_bytes(zipped(tree))
    datasets.fetch(NAME, tmp_path / "root", str(tmp_path / "a.zip"))
    assert datasets.verify(NAME, tmp_path / "root").ok


def test_paths_as_some_tools_on_windows_write_them(tiny, tmp_path):
    tree = {path.replace("/", "\\"): data for path, data in tiny.items()}
    (tmp_path / "a.zip").write_bytes(zipped(tree, prefix="Set\\"))
    datasets.fetch(NAME, tmp_path / "root", str(tmp_path / "a.zip"))
    assert datasets.verify(NAME, tmp_path / "root").ok


@pytest.mark.parametrize("member", ["../evil.png", "/evil.png", "images/../../../evil.png", "C:\\evil.png"])
def test_paths_that_lead_out_of_the_archive_are_left_in_it(tiny, tmp_path, member):
    (tmp_path / "a.zip").write_bytes(zipped({**tiny, member: png(picture(9))}, prefix=""))
    datasets.fetch(NAME, tmp_path / "root", str(tmp_path / "a.zip"))
    assert datasets.verify(NAME, tmp_path / "root").ok
    assert not list(tmp_path.rglob("evil*"))


def test_links_in_a_tar_are_not_followed(tiny, tmp_path):
    put(tmp_path / "tree", {path: data for path, data in tiny.items() if path != "images/2.png"})
    (tmp_path / "secret.png").write_bytes(tiny["images/2.png"])
    (tmp_path / "tree" / "images" / "2.png").symlink_to(tmp_path / "secret.png")
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        opened.add(tmp_path / "tree", "Set")
    assert "without an image (2)" in refused(InvalidData, tmp_path / "root", str(tmp_path / "a.tar"))


def test_an_unpacked_folder_is_told_where_it_belongs(tiny, tmp_path):
    put(tmp_path / "unpacked", tiny)
    for url in (str(tmp_path / "unpacked"), (tmp_path / "unpacked").as_uri()):
        told = refused(InvalidData, tmp_path / "root", url)
        assert f"{url} is a folder: copy its images/ and masks/ to {tmp_path / 'root' / NAME}, then" in told


@pytest.mark.parametrize("method", [9, 98, 77])
def test_a_zip_by_a_method_that_python_lacks_is_told(tiny, tmp_path, method):
    data = bytearray(zipped(tiny))
    for mark, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):  # the method's number in both of its headers
        start = data.find(mark)
        while start >= 0:
            data[start + at : start + at + 2] = method.to_bytes(2, "little")
            start = data.find(mark, start + 4)
    (tmp_path / "a.zip").write_bytes(data)
    told = refused(InvalidData, tmp_path / "root", str(tmp_path / "a.zip"))
    assert "was made with Deflate64, as Windows does above 2 GB, or another method" in told
    assert "repack it" in told


def test_wrong_content_is_refused(tiny, server, tmp_path):
    lacking = {path: data for path, data in tiny.items() if "/4." not in path}
    cases = {
        "1 of 6 pairs are missing (4)": zipped(lacking),
        "no images/ beside masks/": zipped({"readme.png": tiny["images/1.png"]}),
        "neither zip nor tar": b"<html>please log in</html>" * 50,
        "cannot be unpacked": zipped(tiny).replace(tiny["images/1.png"][60:90], b"x" * 30),
    }
    for expected, body in cases.items():
        server.body = body
        assert expected in refused(DatasetError, tmp_path / "root", server.url)


def test_sets_without_an_archive_say_where_to_get_them(tmp_path):
    for name in ("cvc-clinicdb", "etis-laribpolypdb", "cvc-colondb"):
        with pytest.raises(MissingData) as error:
            datasets.fetch(name, tmp_path)
        text = str(error.value)
        assert datasets.REGISTRY[name].homepage in text
        assert f"put its files into {tmp_path / name}, in images/ and masks/" in text
        assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


def test_only_registry_sets_can_be_fetched(tmp_path):
    for name in ("scenes", f"folder:{tmp_path}", "nonsense"):
        with pytest.raises(UnknownDataset, match="kvasir-seg"):
            datasets.fetch(name, tmp_path)


def test_a_place_that_cannot_be_written_to(tiny, tmp_path):
    (tmp_path / "root").write_text("a file, not a folder")
    with pytest.raises(DatasetError, match="is not writable"):
        datasets.fetch(NAME, tmp_path / "root", "x.zip")


# --- verify


def problems_of(tmp_path, tree):
    report = datasets.verify(NAME, put(tmp_path, {f"{NAME}/{path}": data for path, data in tree.items()}))
    assert report.ok == (not report.problems)
    return report


def test_official_files_have_neither_problem_nor_note(tiny, tmp_path):
    assert problems_of(tmp_path, tiny) == datasets.Report(True, (), (), 6)


def test_a_reencoded_copy_is_sound_with_one_note(tiny, tmp_path):
    tree = {}
    for path, data in tiny.items():
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
        tree[path.replace(".png", ".jpg")] = jpeg
    report = problems_of(tmp_path, tree)
    assert report.ok
    assert len(report.notes) == 1
    assert report.notes[0].startswith("6 of 6 pairs")


@pytest.mark.parametrize(("path", "data", "expected"), [
    ("masks/2.png", png(lesion((0, 255))[:20]), "2.png is 60×20 but its image is 60×50: replace it by one of"),
    ("masks/2.png", png(picture(2) // 2), "1 of 6 pairs (2) are not sound: "),
    ("masks/2.png", png(picture(2)), "1 of 6 pairs (2) have a mask that is not black and white"),
    ("masks/2.png", png(lesion((0, 0))), "1 of 6 pairs (2) have a mask without a lesion"),
    ("images/2.png", png(picture(2))[:-20], "1 of 6 pairs (2) are not sound"),
    ("images/7.png", png(picture(7)), "1 image(s) without a mask (7)"),
])  # fmt: skip
def test_each_fault_is_named(tiny, tmp_path, path, data, expected):
    report = problems_of(tmp_path, {**tiny, path: data})
    assert any(expected in problem for problem in report.problems)
    assert len(report.problems) == 1


def test_image_size_and_foreign_names(tiny, tmp_path):
    small = {"images/2.png": png(picture(2)[:40]), "masks/2.png": png(lesion()[:40])}
    more = {"images/x.png": png(picture(8)), "masks/x.png": png(lesion())}
    report = problems_of(tmp_path, {**tiny, **small, **more})
    assert any("(2) are not of the size of this data set" in problem for problem in report.problems)
    assert any("1 pair(s) do not belong to cvc-colondb (x)" in problem for problem in report.problems)


def test_missing_data_raise(tiny, tmp_path):
    with pytest.raises(MissingData):
        datasets.verify(NAME, tmp_path)


def two_parts(stems):
    parts = datasets.split_stems("folder:x", None, stems)
    return parts["train"][0], parts["test"][0]


def test_equal_pixels_in_two_parts_are_a_problem_whatever_the_bytes(tmp_path):
    a, b = two_parts(STEMS)
    c, d = datasets.split_stems("folder:x", None, STEMS)["train"][:2]
    for index, (one, other) in enumerate(((a, b), (c, d))):
        tree = official_tree()
        del tree[f"images/{other}.png"]
        tree[f"images/{other}.bmp"] = cv2.imencode(".bmp", picture(int(one)))[1].tobytes()
        problems = datasets.verify(f"folder:{put(tmp_path / str(index), tree)}").problems
        assert len(problems) == (index == 0), "and none where they are in one part"
        assert all(f"more than once, some in two parts ({' and '.join(sorted((a, b)))})" in text for text in problems)


def test_near_duplicates_in_two_parts_are_a_note_and_in_one_part_nothing(tmp_path):
    tree = official_tree()
    a, b = two_parts(STEMS)
    tree[f"images/{b}.png"] = png(cv2.add(picture(int(a)), 3))
    report = datasets.verify(f"folder:{put(tmp_path, tree)}")
    assert report.ok
    assert len(report.notes) == 1
    assert "1 near-duplicate pair(s)" in report.notes[0]
    first, second = datasets.split_stems("folder:x", None, STEMS)["train"][:2]
    tree = official_tree() | {f"images/{second}.png": png(cv2.add(picture(int(first)), 3))}
    assert datasets.verify(f"folder:{put(tmp_path, tree)}").notes == ()


def test_a_lesion_free_frame_is_allowed_in_a_folder(tmp_path):
    tree = official_tree() | {"masks/1.png": png(lesion((0, 0)))}
    assert datasets.verify(f"folder:{put(tmp_path, tree)}").ok


# --- real data


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["kvasir-seg", "cvc-clinicdb"])
def test_real_data_are_sound(real, name):
    start = time.perf_counter()
    report = datasets.verify(name)
    assert report.problems == ()
    assert report.images == datasets.REGISTRY[name].images
    assert len(report.notes) <= 2  # a re-encoded copy; frames of one video on both sides of a split
    assert time.perf_counter() - start < 120


@pytest.mark.realdata
def test_clinicdb_by_frame_leaks_and_by_sequence_does_not(real):
    notes = datasets.verify("cvc-clinicdb").notes
    assert any("split pranet" in note and "near-duplicate" in note for note in notes)
    assert not any("split sequence" in note for note in notes)


@pytest.mark.realdata
def test_a_real_set_that_loses_a_mask_is_not_sound(real, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "cvc-clinicdb" / folder).mkdir(parents=True)
        for path in sorted((real / "cvc-clinicdb" / folder).glob("1*.png")):
            shutil.copy(path, tmp_path / "cvc-clinicdb" / folder)
    (tmp_path / "cvc-clinicdb" / "masks" / "10.png").unlink()
    report = datasets.verify("cvc-clinicdb", tmp_path)
    assert any("without a mask (10)" in problem for problem in report.problems)
    assert any("of 612 pairs are missing" in problem for problem in report.problems)
