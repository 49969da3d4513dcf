"""Sets of OME-TIFFs: one image in several files."""

import tifffile


def write_ome_set(folder, pixels):
    """Write (Z, Y, X) uint8 ``pixels`` to 0.ome.tif and 1.ome.tif in ``folder``, half of the slices to each."""
    depth, height, width = pixels.shape
    half = depth // 2
    planes = "".join(
        f'<TiffData IFD="{z % half}" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="{z // half}.ome.tif">{z // half}</UUID></TiffData>'
        for z in range(2 * half)
    )
    size = f'SizeX="{width}" SizeY="{height}" SizeZ="{2 * half}" SizeC="1" SizeT="1"'
    for number in range(2):
        words = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{number}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" {size}><Channel ID="Channel:0:0"/>{planes}'
            "</Pixels></Image></OME>"
        )
        part = pixels[half * number : half * (number + 1)]
        path = folder / f"{number}.ome.tif"
        tifffile.imwrite(path, part, photometric="minisblack", description=words, metadata=None)
