"""Scans of every format that is read, and what chance, or somebody who means harm, does to them."""

import bz2
import functools
import gzip
import random
import re
import shutil
import zlib
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

SHAPE = (12, 10, 6)
NUMBERS = ["0", "-1", "1", "2", "3", "4", "7", "83", "255", "1000", "65535", "100000", "2147483647", "4294967296"]
NUMBERS += ["99999999999999999999", "1e308", "1e-308", "nan", "inf", "-inf", "0x10", "1_0", "1,5", "1.5", "", "\u0663"]
NUMBERS += ["none", "()", "(1,0,0)", "%d", "LIST", "LOCAL", "True"]
WORDS = ["../secret", "/dev/zero", "fifo", "C:\\x", ".", "a\0b", "x" * 1014, "x" * 70_000, "\r", "\x1b[2J", "\u00e4"]
WORDS += ["raw", "gzip", "bzip2", "ascii", "hex", "double", "uchar", "block", "MET_DOUBLE", "MET_CHAR", "MET_LONG"]
SIZES = [0, 1, 2, 3, 127, 128, 255, 256, 1000, 8192, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63]
# Elements of a DICOM image and values that it should not have.
ELEMENTS = {
    "Rows": [0, 1, 9, 11, 1000, 30000, 65535],
    "Columns": [0, 1, 11, 13, 1000, 30000, 65535],
    "NumberOfFrames": [0, 1, 2, 5, 7, 1000, 100000, 2147483647, -1],
    "BitsAllocated": [0, 1, 8, 12, 24, 32, 64, 65535],
    "BitsStored": [0, 1, 8, 12, 17, 32, 65535],
    "HighBit": [0, 7, 11, 16, 65535],
    "PixelRepresentation": [0, 1, 2, 65535],
    "SamplesPerPixel": [0, 1, 3, 4, 65535],
    "PlanarConfiguration": [0, 1, 2],
    "PhotometricInterpretation": ["MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", ""],
    "RescaleSlope": [0, 0.5, 2, -1, "1e300", "nan", "", 32768],
    "RescaleIntercept": [0.5, "1e300", 100000, "nan", -32768],
    "PixelSpacing": [[0, 0], [1e-9, 1], [-1, 1], [1], [1, 1, 1], ["nan", 1], [1e9, 1e9]],
    "ImagePositionPatient": [[0, 0, 0], [1, 2], ["nan", 0, 0], [1e300, 0, 0], None],
    "ImageOrientationPatient": [[0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 3, 0], [1, 0, 0], None],
    "SeriesInstanceUID": ["1.2.3.2", "", "1." * 31 + "1"],
    "Modality": ["MR", "SEG", ""],
}
# A bomb: so many voxels of zeros, in a file of a few megabytes.
BOMB_SHAPE = (600, 500, 500)
BOMBS_EVERY = 500


def make_scan(seed: int, number: int, folder: Path) -> tuple[str, Path]:
    """Write the damaged scan of this number into an empty folder; return its kind and the path to read."""
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    chance = random.Random(f"{seed} {number}")
    if number and chance.randrange(BOMBS_EVERY) == 0:
        return bomb(chance, folder)
    return chance.choice((nifti, nrrd, metaimage, dicom))(chance, folder)


def voxels(dtype=np.int16) -> np.ndarray:
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100).astype(dtype)


def nifti(chance: random.Random, folder: Path) -> tuple[str, Path]:
    content = nifti_file(chance.choice(["int16", "float32", "uint8", "float64"]), chance.random() < 0.2)
    form = chance.choice(["nii", "gz before", "gz after"])
    if form != "gz after":
        content = damage(chance, content, 352)
    if form != "nii":
        content = gzip.compress(content, 1, mtime=0)
    if form == "gz after":
        content = damage(chance, content, 30)
    path = folder / ("scan.nii" if form == "nii" else "scan.nii.gz")
    path.write_bytes(content)
    return f"nifti {form}", path


@functools.cache
def nifti_file(dtype: str, second: bool) -> bytes:
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    return kind(voxels(dtype), np.diag([1.0, 1.5, 2.0, 1.0]), dtype=dtype).to_bytes()


def nrrd(chance: random.Random, folder: Path) -> tuple[str, Path]:
    encoding, beside = chance.choice(["raw", "gzip", "bzip2"]), chance.random() < 0.3
    kind, dtype = chance.choice([("short", "<i2"), ("float", "<f4"), ("uchar", "u1"), ("int64", "<i8")])
    header = (
        f"NRRD0004\n# made for a test\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {SHAPE[0]} {SHAPE[1]} {SHAPE[2]}\nspace directions: (1,0,0) (0,1.5,0) (0,0,2)\n"
        f"kinds: domain domain domain\nendian: little\nencoding: {encoding}\nspace origin: (1,2,3)\n"
        f"key:=value\n{'data file: scan.raw' if beside else ''}\n"
    )
    pack = {"raw": bytes, "gzip": functools.partial(gzip.compress, mtime=0), "bzip2": bz2.compress}[encoding]
    content = pack(voxels(dtype).tobytes(order="F"))
    return f"nrrd {encoding}", with_text_header(chance, folder, header, content, beside, "nhdr" if beside else "nrrd")


def metaimage(chance: random.Random, folder: Path) -> tuple[str, Path]:
    compressed, beside = chance.random() < 0.4, chance.random() < 0.3
    kind, dtype = chance.choice([("MET_SHORT", "<i2"), ("MET_FLOAT", "<f4"), ("MET_UCHAR", "u1")])
    content = voxels(dtype).tobytes(order="F")
    content = zlib.compress(content) if compressed else content
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {compressed}\nCompressedDataSize = {len(content)}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"Offset = 1 2 3\nCenterOfRotation = 0 0 0\nElementSpacing = 1 1.5 2\n"
        f"DimSize = {SHAPE[0]} {SHAPE[1]} {SHAPE[2]}\n"
        f"ElementType = {kind}\nElementDataFile = {'scan.raw' if beside else 'LOCAL'}\n"
    )
    return "metaimage", with_text_header(chance, folder, header, content, beside, "mhd" if beside else "mha")


def with_text_header(
    chance: random.Random, folder: Path, header: str, content: bytes, beside: bool, extension: str
) -> Path:
    text = header.encode()
    if chance.random() < 0.8:
        for _ in range(chance.choice([1, 1, 2, 4])):
            text = damage_text(chance, text)
    path = folder / f"scan.{extension}"
    if beside:
        (folder / "scan.raw").write_bytes(damage(chance, content, 10) if chance.random() < 0.3 else content)
        path.write_bytes(text)
    else:
        whole = text + content
        path.write_bytes(damage(chance, whole, len(text)) if chance.random() < 0.4 else whole)
    return path


def dicom(chance: random.Random, folder: Path) -> tuple[str, Path]:
    syntax = chance.choice(list(SYNTAXES))
    frames = SHAPE[2] if chance.random() < 0.25 and syntax in ("explicit", "implicit", "rle") else 1
    content = dicom_file(syntax, frames, 1)
    if chance.random() < 0.5:
        dataset = dcmread(DicomBytesIO(content), force=True)
        for name in chance.sample(list(ELEMENTS), chance.choice([1, 1, 2, 3])):
            set_element(dataset, name, chance.choice(ELEMENTS[name]))
        if chance.random() < 0.1:
            dataset.file_meta.TransferSyntaxUID = UID(chance.choice(OTHER_SYNTAXES))
            if dataset.file_meta.TransferSyntaxUID.is_compressed and not dataset["PixelData"].is_undefined_length:
                dataset.PixelData = encapsulate([dataset.PixelData])
                dataset["PixelData"].is_undefined_length = True
        if chance.random() < 0.1:  # so much that any size is plausible
            dataset.add_new(0xFFFCFFFC, "OB", bytes(400_000))
        stream = DicomBytesIO()
        dataset.save_as(stream, enforce_file_format=False)
        content = stream.getvalue()
    if chance.random() < 0.6:
        content = damage(chance, content, max(content.rfind(b"\xe0\x7f\x10\x00"), 200) + 30)
    if frames == 1:
        for other in (0, 2):
            (folder / f"slice{other}.dcm").write_bytes(dicom_file(syntax, 1, other))
    path = folder / "slice1.dcm"
    path.write_bytes(content)
    return f"dicom {syntax}{' frames' * (frames > 1)}", folder if chance.random() < 0.8 else path


def set_element(dataset: Dataset, name: str, value) -> None:
    from pydicom import config
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    config.settings.writing_validation_mode = config.settings.reading_validation_mode = config.IGNORE
    tag, vr = tag_for_keyword(name), dictionary_VR(name)
    vr = "US" if vr == "US or SS" else vr
    if value is None:
        dataset.pop(tag, None)
    elif vr in ("DS", "IS"):  # any text, as no writer of DICOM would let it be
        text = "\\".join(map(str, value)) if isinstance(value, list) else str(value)
        dataset.pop(tag, None)
        dataset.add_new(tag, "LO", text)
    else:
        dataset.add_new(tag, vr, value)


SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
    "JPEG": None,
    "JPEG2000": None,
}
OTHER_SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"]
OTHER_SYNTAXES += [f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)]
OTHER_SYNTAXES += ["1.2.840.10008.1.2.5"]


@functools.cache
def dicom_file(syntax: str, frames: int, slice_number: int, shape=SHAPE, padding: int = 0) -> bytes:
    """One slice, or all as frames."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.3.4.{slice_number + 1}"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Modality, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "CT", "1.2.3.1", "1.2.3"
    dataset.PatientName, dataset.SeriesNumber, dataset.InstanceNumber = "Doe^Jane", 1, slice_number + 1
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 2 * slice_number], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1.5, 1.0], 2
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.Columns, dataset.Rows, dataset.SamplesPerPixel = shape[0], shape[1], 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    stored = np.ascontiguousarray(voxels().T)[:frames] if shape == SHAPE else np.zeros((1, *shape[1::-1]), np.int16)
    if frames > 1:
        dataset.NumberOfFrames = frames
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
        groups = []
        for frame in range(frames):
            position, group = Dataset(), Dataset()
            position.ImagePositionPatient = [0, 0, 2 * frame]
            group.PlanePositionSequence = Sequence([position])
            groups.append(group)
        dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.PixelData = stored.tobytes()
    if syntax == "rle":
        dataset.compress(RLELossless)
    elif syntax in ("JPEG", "JPEG2000"):
        compressed = itk_file(syntax, stored.tobytes(), stored.shape)
        dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
        dataset.PixelData = compressed.PixelData
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    else:
        dataset.file_meta.TransferSyntaxUID = SYNTAXES[syntax]
    if padding:
        dataset.add_new(0xFFFCFFFC, "OB", bytes(padding))
    stream = DicomBytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def itk_file(compressor: str, content: bytes, shape: tuple[int, ...]) -> Dataset:
    """What GDCM makes of pixels."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slice.dcm")
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(path))
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(np.frombuffer(content, np.int16).reshape(shape)))
        return dcmread(path)


def damage(chance: random.Random, content: bytes, header: int) -> bytes:
    """Change bytes, most of them in the header."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        end = max(1, min(header if chance.random() < 0.8 else len(changed), len(changed)))
        place = chance.randrange(end)
        match chance.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[place : place + 1] = bytes([(changed[place] if changed else 0) ^ 1 << chance.randrange(8)])
            case 2:
                width, order = chance.choice([1, 2, 4, 8]), chance.choice(["little", "big"])
                value = chance.choice(SIZES) & (1 << 8 * width) - 1
                place -= place % width
                changed[place : place + width] = value.to_bytes(width, order)
            case 3:
                del changed[place : place + chance.choice([1, 2, 4, 16, 100])]
            case 4:
                changed[place:place] = changed[place : place + chance.choice([1, 2, 4, 16, 100])]
            case 5 if chance.random() < 0.3:
                del changed[place:]
        changed = changed or bytearray(1)
    return bytes(changed)


def damage_text(chance: random.Random, text: bytes) -> bytes:
    """Change a header of text by the rules of its language, more or less."""
    lines = text.split(b"\n")
    at = chance.randrange(len(lines))
    line = lines[at]
    match chance.randrange(9):
        case 0:
            lines[at] = replace_one(chance, rb"[-+0-9.]+", chance.choice(NUMBERS), line)
        case 1:
            lines[at] = replace_one(chance, rb"[^\s:=(),]+", chance.choice(WORDS + NUMBERS), line)
        case 2:
            lines[at] = line.swapcase()
        case 3:
            lines.insert(chance.randrange(len(lines)), line)
        case 4:
            del lines[at]
        case 5:
            lines[at] = line.replace(b":", b":=", 1) if b":" in line else line.replace(b"=", b"==", 1)
        case 6:
            lines[at] = line + b" " + chance.choice(WORDS).encode()
        case 7:
            lines[at] = re.sub(rb"\S+$", lambda match: match[0] * chance.choice([2, 500, 20_000]), line)
        case 8:
            return damage(chance, text, len(text))
    return b"\n".join(lines)


def replace_one(chance: random.Random, pattern: bytes, new: str, line: bytes) -> bytes:
    found = list(re.finditer(pattern, line))
    if not found:
        return line
    match = chance.choice(found)
    return line[: match.start()] + new.encode() + line[match.end() :]


def bomb(chance: random.Random, folder: Path) -> tuple[str, Path]:
    """A small file of a header that is true, and of zeros without end."""
    match chance.choice(["nifti", "nrrd", "metaimage", "dicom", "dicom frames"]):
        case "nifti":
            dtype = chance.choice(["float64", "int64", "uint8"])
            header = bytearray(nifti_file(dtype, False)[:352])
            header[42:48] = np.array(BOMB_SHAPE, "<i2").tobytes()
            path = folder / "scan.nii.gz"
            path.write_bytes(gzip.compress(header, 1, mtime=0) + zeros("gzip", np.dtype(dtype).itemsize))
            return "nifti bomb", path
        case "nrrd":
            sizes = " ".join(map(str, BOMB_SHAPE))
            header = f"NRRD0004\ntype: double\ndimension: 3\nsizes: {sizes}\nendian: big\nencoding: gzip\n\n"
            path = folder / "scan.nrrd"
            path.write_bytes(header.encode() + zeros("gzip", 8))
            return "nrrd bomb", path
        case "metaimage":
            sizes = " ".join(map(str, BOMB_SHAPE))
            header = f"ObjectType = Image\nNDims = 3\nCompressedData = True\nDimSize = {sizes}\n"
            header += "ElementType = MET_ULONG_LONG\nElementDataFile = LOCAL\n"
            path = folder / "scan.mha"
            path.write_bytes(header.encode() + zeros("zlib", 8))
            return "metaimage bomb", path
        case "dicom":
            syntax, side = chance.choice(["rle", "JPEG", "JPEG2000", "explicit"]), chance.choice([5000, 12000, 20000])
            for number in range(2):
                dataset = dcmread(DicomBytesIO(dicom_file(syntax, 1, number, padding=1_500_000)))
                dataset.Rows = dataset.Columns = side
                dataset.save_as(folder / f"slice{number}.dcm")
            return f"dicom bomb {syntax} {side}", folder
        case "dicom frames":
            syntax, count = chance.choice(["rle", "explicit"]), chance.choice([300, 3000])
            dataset = dcmread(DicomBytesIO(dicom_file(syntax, SHAPE[2], 1, padding=1_500_000)))
            dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 512, 512, count
            path = folder / "frames.dcm"
            dataset.save_as(path)
            return f"dicom bomb frames {syntax} {count}", path
    raise AssertionError("one of them was chosen")


@functools.cache
def zeros(compression: str, itemsize: int) -> bytes:
    packer = zlib.compressobj(1, wbits=31 if compression == "gzip" else 15)
    left, parts, block = int(np.prod(BOMB_SHAPE)) * itemsize, [], bytes(1 << 20)
    while left > 0:
        parts.append(packer.compress(block[:left]))
        left -= len(block)
    return b"".join(parts) + packer.flush()
