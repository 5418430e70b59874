"""Rebuild the cut-outs from Debian's package of Tux Paint stamps.

    apt-get download tuxpaint-stamps-default=2022.06.04-1
    python data/sample/rebuild.py tuxpaint-stamps-default_2022.06.04-1_all.deb

cutouts.csv says which stamps are taken; the script checks the package, writes the WebP files
beside the CSV, and brings the CSV's checksums up to date. With the same Pillow the files are the
same bytes.
"""

import argparse
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
from PIL import Image

HERE = Path(__file__).parent
PACKAGE_SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
STAMPS = "./usr/share/tuxpaint/stamps/"
LONGEST = 224
"""Pixels of the longer side at most."""


def main() -> None:
    """Write the cut-outs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deb", type=Path)
    stamps = read_stamps(parser.parse_args().deb)
    table = pd.read_csv(HERE / "cutouts.csv")
    sums = []
    for name, source in zip(table["object"], table["source"], strict=True):
        path = HERE / "cutouts" / f"{name}.webp"
        path.parent.mkdir(exist_ok=True)
        cut_out(stamps[source]).save(path, quality=85, method=6)
        sums.append(hashlib.sha256(path.read_bytes()).hexdigest())
    table["sha256"] = sums
    table.to_csv(HERE / "cutouts.csv", index=False)


def read_stamps(deb: Path) -> dict[str, bytes]:
    """The PNG files of the package, by their path below the stamps folder."""
    found = hashlib.sha256(deb.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        raise SystemExit(f"{deb} has the SHA-256 {found}: expected {PACKAGE_SHA256}")
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(data.stdout)) as archive:
        return {
            member.name.removeprefix(STAMPS): file.read()
            for member in archive
            if member.name.startswith(STAMPS) and member.name.endswith(".png") and member.isfile()
            if (file := archive.extractfile(member)) is not None
        }


def cut_out(png: bytes) -> Image.Image:
    """The object, cropped to where it is not transparent and no larger than LONGEST."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    scale = LONGEST / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


if __name__ == "__main__":
    main()
