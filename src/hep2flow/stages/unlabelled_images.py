"""Unlabelled cells: image files, and the masks beside them, for a network that is trained already."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from hep2flow.errors import DataFaults, UserError
from hep2flow.sources import i3a, icpr2012, open_source
from hep2flow.sources.file_tree import ARCHIVE_SUFFIXES, FileTree, FolderTree, open_tree
from hep2flow.sources.image_files import SUFFIXES
from hep2flow.sources.listing import Labels, Listing
from hep2flow.sources.source import Source

_MASK = re.compile(r"_mask$", re.IGNORECASE)
UNKNOWN = ""  # the pattern of a cell that nobody named


class _Files(FolderTree):
    """Some files of a folder, which is not looked through."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        FileTree.__init__(self, names)


class _Together(FileTree):
    """Files of several trees, by the paths under which the user knows them."""

    def __init__(self, files: Mapping[str, tuple[FileTree, str]]) -> None:
        self._files = files
        super().__init__(files)

    def read(self, name: str) -> bytes:
        tree, inner = self._files[name]
        return tree.read(inner)


@dataclass(frozen=True)
class _Place:
    """What one argument, or several images of one folder, stand for: a tree, and the path in front of its names."""

    tree: FileTree
    path: str

    def known(self, name: str) -> str:
        """The path of one of its files, as the user knows it."""
        return os.path.join(self.path, name)


def open_images(paths: list[str], format: str = "auto", mask: str | None = None) -> Source:
    """Every image that the paths name or hold, as a source of cells without patterns.

    paths:  image files, folders, archives
    format: icpr2012, i3a: a data set of that form, whose specimens and masks are read as it says; folder: any images in
            folders, the folder is the specimen; auto: recognised
    mask:   a mask for the only image, or a folder of masks, ``NAME.png`` or ``NAME_mask.png``; None for the masks beside
            the images, ``NAME_mask.png``
    Raises UserError for a path that is none or holds no image, and DataFaults for masks that belong to no image.
    """
    labels, name = Labels(), paths[0] if len(paths) == 1 else f"{len(paths)} paths"
    files: dict[str, tuple[FileTree, str]] = {}
    resources: ExitStack[None] = ExitStack()
    with resources:
        given = None if mask is None else _given_masks(mask, resources)
        for place, recognised in _places(paths, format, labels, resources):
            files |= {place.known(name): (place.tree, name) for name in place.tree.names}
            found = _of_form(place, recognised, labels) if recognised else _plain(place, given, labels)
            if not found and not labels.faults:
                raise UserError(f"{place.path}: holds no PNG, BMP or TIFF image; check the path")
            labels.listings += found
        if given is not None:
            labels.listings = _with_given(labels.listings, given, str(mask), labels)
            files |= {given.place.known(name): (given.place.tree, name) for name in given.by_stem.values()}
        if labels.faults:
            raise DataFaults(name, labels.faults)
        return Source(
            name=name,
            format=format,
            synthetic=labels.synthetic,
            listings=list({listing.cell_id: listing for listing in labels.listings}.values()),
            faults=[],
            notes=labels.notes,
            given_split=None,
            id_order_is_proxy=False,
            tree=_Together(files),
            resources=resources.pop_all(),
        )


def _places(
    paths: list[str], format: str, labels: Labels, resources: ExitStack[None]
) -> Iterator[tuple[_Place, str | None]]:
    """Places of all paths, and the form of those that are a data set of one."""
    beside: dict[Path, set[str]] = {}
    for text in paths:
        path = Path(text).expanduser()
        if not path.exists():
            labels.fault(str(path), "no such file or folder", "check the path")
            continue
        if path.is_file() and not path.name.lower().endswith(ARCHIVE_SUFFIXES):
            if _is_image(path.name):
                beside.setdefault(path.parent, set()).add(path.name)
            else:
                labels.fault(str(path), "is not a PNG, BMP or TIFF image", "give the original pixels as one of these")
            continue
        tree = open_tree(path, resources)
        form = format if format in ("icpr2012", "i3a") else None
        if format == "auto":
            form = "i3a" if i3a.find_root(tree) is not None else "icpr2012" if icpr2012.find_root(tree) else None
        yield _Place(tree, str(path)), form
    for folder, names in beside.items():
        stems = {_stem(name) for name in names}
        masks = {name for name in os.listdir(folder) if _is_mask(name) and _stem(name) in stems}
        yield _Place(_Files(folder, names | masks), "" if folder == Path() else str(folder)), None


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_mask(name: str) -> bool:
    return _is_image(name) and _MASK.search(PurePosixPath(name).stem) is not None


def _stem(name: str) -> str:
    """A file's name without its ending, and without ``_mask``."""
    return _MASK.sub("", str(PurePosixPath(name).with_suffix("")))


def _plain(place: _Place, given: _GivenMasks | None, labels: Labels) -> list[Listing]:
    masks: dict[str, str] = {}
    images, others = [], []
    for name in place.tree.names:
        if given is not None and place.known(name) in given.paths:
            continue
        if not _is_image(name):
            others.append(name)
        elif not _is_mask(name):
            images.append(name)
        elif _stem(name) in masks:
            labels.fault(place.known(name), f"the same name as {masks[_stem(name)]}", "remove one of the two")
        else:
            masks[_stem(name)] = name
    if others:
        some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        labels.notes.append(f"{place.path}: {len(others)} files that are no PNG, BMP or TIFF were ignored: {some}")
    for stem in sorted(masks.keys() - {_stem(name) for name in images}):
        labels.fault(place.known(masks[stem]), "mask without an image", "add the image, or remove the mask")
    return [
        Listing(
            cell_id=place.known(name),
            official_split=None,
            pattern=UNKNOWN,
            intensity=None,
            specimen_id=os.path.dirname(place.known(name)) or ".",
            image=place.known(name),
            mask=place.known(masks[_stem(name)]) if _stem(name) in masks else None,
            where=name,
        )
        for name in images
    ]


def _of_form(place: _Place, form: str, labels: Labels) -> list[Listing]:
    with open_source(place.path, form) as source:
        labels.faults += source.faults
        labels.notes += source.notes
        return [
            replace(
                listing,
                cell_id=place.known(listing.image),
                pattern=UNKNOWN,
                specimen_id=None if listing.specimen_id is None else place.known(listing.specimen_id),
                image=place.known(listing.image),
                mask=None if listing.mask is None else place.known(listing.mask),
            )
            for listing in source.listings
        ]


@dataclass(frozen=True)
class _GivenMasks:
    """Masks that were named apart from the images.

    by_stem: name of a file by its stem; the single mask of a single image has the stem None
    """

    place: _Place
    by_stem: dict[str | None, str]

    @property
    def paths(self) -> set[str]:
        return {self.place.known(name) for name in self.by_stem.values()}


def _given_masks(mask: str, resources: ExitStack[None]) -> _GivenMasks:
    path = Path(mask).expanduser()
    if path.is_file() and _is_image(path.name):
        return _GivenMasks(_Place(_Files(path.parent, [path.name]), str(path.parent)), {None: path.name})
    tree = open_tree(path, resources)
    return _GivenMasks(_Place(tree, str(path)), {_stem(name): name for name in tree.names if _is_image(name)})


def _with_given(listings: list[Listing], given: _GivenMasks, mask: str, labels: Labels) -> list[Listing]:
    single = given.by_stem.get(None)
    if single is not None:
        if len(listings) != 1:
            raise UserError(f"--mask {mask}: is one mask for {len(listings)} images; name a folder of masks")
        return [replace(listings[0], mask=given.place.known(single))]
    found = []
    taken: dict[str, str] = {}
    for listing in listings:
        # The nearest name: cells/01/007.png has the mask masks/01/007.png, else masks/007.png.
        parts = PurePosixPath(_stem(listing.image)).parts
        stems = ["/".join(parts[start:]) for start in range(len(parts))]
        name = next((given.by_stem[stem] for stem in stems if stem in given.by_stem), None)
        if name is None:
            labels.fault(listing.image, f"has no mask in {mask}", f"add {stems[-1]}_mask.png there")
        elif taken.setdefault(name, listing.image) != listing.image:
            labels.fault(
                listing.image, f"has the mask of {taken[name]}", f"put the masks of each folder apart in {mask}"
            )
        else:
            found.append(replace(listing, mask=given.place.known(name)))
    return found
