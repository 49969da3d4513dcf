"""TIFF files with the tags that microscopes write, for the tests."""

import struct

import numpy as np
import tifffile

ROWS, COLUMNS = 40, 32


def pixels(rows=ROWS, columns=COLUMNS, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(1, 250, (rows, columns)).astype(dtype)


def vendor_tiff(path, image=None, *, tags=(), **options):
    """Write ``image`` with ``tags``, each (code, text, bytes or number); return the image."""
    image = pixels() if image is None else image
    extra = []
    for code, value in tags:
        if isinstance(value, float):
            extra.append((code, "d", 1, value, True))
        elif isinstance(value, int):
            extra.append((code, "H", 1, value, True))
        elif isinstance(value, tuple):
            extra.append((code, "2I", 1, value, True))
        else:
            content = value.encode("latin-1") if isinstance(value, str) else value
            extra.append((code, "s" if isinstance(value, str) else "B", len(content), content, True))
    tifffile.imwrite(path, image, extratags=extra, **{"photometric": "minisblack", "metadata": None, **options})
    return image


def fibics_xml(step="0.005", row="-0.005", rows=ROWS, columns=COLUMNS, declared=""):
    return (
        f'<?xml version="1.0" encoding="iso-8859-1"?>{declared}<Fibics version="1.0"><Application><Version>NPVE v4.5'
        f"</Version></Application><Image><Width>{columns}</Width><Height>{rows}</Height><Beam>SEM</Beam><Aperture>10 "
        f"\u00b5m</Aperture></Image><Scan><Ux>{step}</Ux><Uy>0</Uy><Vx>0</Vx><Vy>{row}</Vy></Scan></Fibics>"
    )


def orion_xml(x="9.0E-10", y="8.0E-10", unit="m", rows=ROWS, columns=COLUMNS):
    return (
        f"<ImageTags><ScalingX><Value>{x}</Value><Units>{unit}</Units></ScalingX><ScalingY><Value>{y}</Value><Units>"
        f"{unit}</Units></ScalingY><ImageWidth><Value>{columns}</Value><Units></Units></ImageWidth><ImageHeight><Value>"
        f"{rows}</Value><Units></Units></ImageHeight><System.Model><Value>_Orion_</Value><Units></Units></System.Model>"
        "</ImageTags>"
    )


def fei_ini(section="Scan", size="4.0e-9", more="", rows=ROWS, columns=COLUMNS):
    return (
        f"[System]\r\nSystemType=Quanta FEG\r\n[Beam]\r\nBeam=EBeam\r\nScan=EScan\r\n[{section}]\r\n"
        f"PixelWidth={size}\r\nPixelHeight=5.0e-9\r\n[Image]\r\nResolutionX={columns}\r\nResolutionY={rows}\r\n{more}"
    )


def thermo_xml(rows=ROWS, columns=COLUMNS):
    return (
        '<?xml version="1.0"?><Metadata xmlns:nil="http://schemas.fei.com/Metadata/v1/2013/07"><Instrument>'
        "<InstrumentClass>Helios</InstrumentClass></Instrument><BinaryResult><ImageSize>"
        f"<X>{columns}</X><Y>{rows}</Y></ImageSize><PixelSize><X unit='m'>4.0E-09</X><Y unit='m'>5.0E-09</Y>"
        "</PixelSize></BinaryResult></Metadata>"
    )


def phenom_xml(bar=0):
    return (
        f"<FeiImage version='1'><databarHeight>{bar}</databarHeight><pixelWidth unit='um'>0.004</pixelWidth>"
        "<pixelHeight unit='um'>0.005</pixelHeight><instrument><type>ProX</type></instrument></FeiImage>"
    )


def tia_xml():
    return (
        "<Root><Data><Label>Microscope</Label><Value>Microscope Tecnai 200 kV</Value><Unit></Unit></Data><Data><Label>"
        "Magnification</Label><Value>6300</Value><Unit>x</Unit></Data></Root>"
    )


def tescan_lines(strip=0, sign="\n"):
    lines = ("Device=TESCAN MIRA", f"ImageStripSize={strip}", "PixelSizeX=0.000000004", "PixelSizeY=0.000000005")
    return sign.join(lines) + sign


def tescan_tag(strip=0):
    """Return the tag: a thumbnail, then the lines, each part behind its length and kind."""
    parts = [(1, b"\x00\x0cjP" + bytes(range(256))), (2, tescan_lines(strip).encode())]
    return b"".join(struct.pack("<IH", len(part) + 2, kind) + part for kind, part in parts)


def sightx_xml(mode="MAG", eos="eosTEM", magnification="5000"):
    return (
        f"<TemReporter><Instruments>JEM-1400</Instruments><Eos><EosMode>{eos}</EosMode></Eos><ImageFormingSystem>"
        f"<ModeString>{mode}</ModeString><SelectorValue>{magnification}</SelectorValue></ImageFormingSystem></TemReporter>"
    )


def sis_tag(exponent=-9, x=4.0, y=5.0):
    """Return Olympus' structure as if it began at byte 0; its second part is found by its place in the file."""
    general = struct.pack("<10xhdd8xd2x34s32s", exponent, x, y, 1000.0, b"MegaView", b"")
    return struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 1, 1, 1, 1, 100, b"a", 1), general


def tvips_tag(x=4.0, y=5.0, magic=0xAAAAAAAA, order="<"):
    first = np.zeros(1, np.dtype(tifffile.TIFF.TVIPS_HEADER_V1).newbyteorder(order))
    second = np.zeros(1, np.dtype(tifffile.TIFF.TVIPS_HEADER_V2).newbyteorder(order))
    first["Version"], second["PixelSizeX"], second["PixelSizeY"], second["Magic"] = 2, x, y, magic
    second["CameraType"] = np.void("TemCam-F416".encode("utf-16-le").ljust(160, b"\x00"))
    return first.tobytes() + second.tobytes()
